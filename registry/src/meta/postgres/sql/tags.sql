-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A repository without tags is one row of NULL; one that does not exist is none.
SELECT t.name
FROM repositories r
LEFT JOIN LATERAL (
  SELECT name
  FROM tags
  WHERE repo_id = r.id
    AND trashed_until IS NULL
    AND name > $2  -- COLLATE "C": byte order; the empty text comes before all
  ORDER BY name
  LIMIT $3
) t ON true
WHERE r.name = $1
ORDER BY t.name
