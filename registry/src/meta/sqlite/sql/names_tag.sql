-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT 1
FROM repositories r
JOIN tags t ON t.repo_id = r.id
WHERE r.name = ?1
  AND t.name = ?2
  AND (t.gen = ?3 OR t.prev_gen = ?3)
