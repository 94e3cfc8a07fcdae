-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- One row without a tag tells a repository without (more) tags from none at all.
SELECT t.name
FROM repositories r
LEFT JOIN tags t ON t.repo_id = r.id
  AND t.trashed_until IS NULL
  AND t.name > coalesce(?2, '')
WHERE r.name = ?1
ORDER BY t.name
LIMIT ?3
