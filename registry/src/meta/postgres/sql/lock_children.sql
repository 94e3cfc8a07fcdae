-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held until the push is published: a delete of a child waits, then sees who lists it.
SELECT digest
FROM manifests
WHERE repo_id = $1
  AND digest = ANY ($2)
  AND state = 1
ORDER BY id  -- the lock order
FOR KEY SHARE
