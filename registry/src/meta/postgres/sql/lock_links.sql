-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held against the sweeper of links, and against a client's delete.
SELECT l.id, l.digest
FROM repo_blobs l
JOIN blobs b ON b.id = l.blob_id
WHERE l.repo_id = $1
  AND l.digest = ANY ($2)
  AND l.gen IS NOT NULL  -- else it is hidden
  AND b.form <> 0        -- else its data is absent
ORDER BY l.digest        -- the lock order
FOR KEY SHARE OF l
