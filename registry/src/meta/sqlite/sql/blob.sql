-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT l.id, b.gen, b.form, b.tail, b.size,
  l.touched < (SELECT now FROM clock) - ?3 AS lease_is_old
FROM repositories r
JOIN repo_blobs l ON l.repo_id = r.id
JOIN blobs b ON b.id = l.blob_id
WHERE r.name = ?1
  AND l.digest = ?2
  AND l.gen IS NOT NULL  -- visible
  AND b.form <> 0  -- stored
