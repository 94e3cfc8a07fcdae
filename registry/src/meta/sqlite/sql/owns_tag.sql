-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Its own record, and the one that a tombstone hides.
SELECT 1
FROM repositories r
JOIN tags t ON t.repo_id = r.id
WHERE r.name = ?1
  AND t.name = ?2
  AND ?3 IN (t.gen, t.prev_gen)
