-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT l.digest, l.gen AS generation
FROM repositories r
JOIN repo_blobs l ON l.repo_id = r.id
WHERE r.name = $1
  AND l.digest >= $2
  AND l.digest <= $3
  AND l.gen IS NOT NULL  -- hidden ones claim nothing
ORDER BY l.digest
LIMIT $4
