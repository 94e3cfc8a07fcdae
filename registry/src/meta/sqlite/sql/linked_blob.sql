-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.id
FROM repositories r
JOIN repo_blobs l ON l.repo_id = r.id
JOIN blobs b ON b.id = l.blob_id
WHERE r.name = ?1
  AND l.digest = ?2
  AND (l.gen IS NOT NULL OR ?3)  -- visible, or to be shown again
  AND b.form <> 0  -- stored
