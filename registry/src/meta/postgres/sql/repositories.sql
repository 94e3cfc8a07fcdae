-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT e.epoch = $3 AND e.fence = pg_postmaster_start_time() AS ours,
       r.name IS NOT NULL AS found,
       r.name
FROM meta e
LEFT JOIN LATERAL (
  SELECT name
  FROM repositories
  WHERE name > $1
  ORDER BY name
  LIMIT $2
) r ON true
ORDER BY r.name
