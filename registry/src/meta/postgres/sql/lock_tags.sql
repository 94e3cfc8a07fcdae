-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name
FROM (
  SELECT name
  FROM unnest((SELECT $2::text[])) AS wanted (name)
  ORDER BY name COLLATE "C"  -- the lock order
) wanted
CROSS JOIN LATERAL (SELECT name FROM tags WHERE repo_id = $1 AND tags.name = wanted.name LIMIT 1 FOR UPDATE) t
