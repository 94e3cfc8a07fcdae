-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A repository without (more) tags is one row without a name; one that does not exist is one row that says so.
SELECT meta.epoch = ?4 AND meta.fence IS ?5 AS ours,
  r.id IS NOT NULL AS found,
  t.name
FROM meta
LEFT JOIN repositories r ON r.name = ?1
LEFT JOIN tags t ON t.repo_id = r.id
  AND t.trashed_until IS NULL
  AND t.name > coalesce(?2, '')
ORDER BY t.name
LIMIT ?3
