-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, state, gen AS generation
FROM manifests
WHERE repo_id = $1
  AND digest = ANY ($2)
ORDER BY id  -- the lock order
FOR NO KEY UPDATE
