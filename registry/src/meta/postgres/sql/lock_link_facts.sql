-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, gen AS generation
FROM repo_blobs
WHERE repo_id = $1
  AND digest = ANY ($2)
ORDER BY digest  -- the lock order
FOR UPDATE
