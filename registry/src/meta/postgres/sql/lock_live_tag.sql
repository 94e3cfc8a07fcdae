-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.repo_id, t.gen
FROM repositories r
JOIN tags t ON t.repo_id = r.id
WHERE r.name = $1
  AND t.name = $2
  AND t.trashed_until IS NULL
FOR UPDATE OF t
