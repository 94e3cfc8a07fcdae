-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT r.name
FROM blobs b
JOIN repo_blobs l ON l.blob_id = b.id
JOIN repositories r ON r.id = l.repo_id
WHERE b.digest = ?1
  AND b.form <> 0  -- stored
  AND l.gen IS NOT NULL  -- visible
ORDER BY r.name
LIMIT ?2
