-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held against the sweeper of links; hidden ones and those without data too.
SELECT l.id, l.digest
FROM repo_blobs l
WHERE l.repo_id = $1
  AND l.digest = ANY ($2)
ORDER BY l.digest  -- the lock order
FOR KEY SHARE OF l
