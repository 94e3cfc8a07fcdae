-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT 1
FROM repositories r
JOIN repo_blobs l ON l.repo_id = r.id
WHERE r.name = ?1
  AND l.digest = ?2
  AND l.gen = ?3
