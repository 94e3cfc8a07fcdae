-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Against their deletion until the tag names them.
SELECT id, digest, state
FROM manifests
WHERE repo_id = $1
  AND digest = ANY ($2)
  AND state IN (1, 2)
ORDER BY id  -- the lock order
FOR SHARE
