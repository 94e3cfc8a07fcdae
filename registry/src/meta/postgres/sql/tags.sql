-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A repository without tags is one row of NULL; one that does not exist is one row that says so.
SELECT e.epoch = $4 AND e.fence = pg_postmaster_start_time() AS ours,
       r.id IS NOT NULL AS found,
       t.name
FROM meta e
LEFT JOIN repositories r ON r.name = $1
LEFT JOIN LATERAL (
  SELECT name
  FROM tags
  WHERE repo_id = r.id
    AND trashed_until IS NULL
    AND name > $2  -- COLLATE "C": byte order; the empty text comes before all
  ORDER BY name
  LIMIT $3
) t ON true
ORDER BY t.name
