-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What day it is, in days since 1970, and how many seconds of it are left.
WITH clock AS (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now),
pulled AS (
  SELECT DISTINCT m.id
  FROM unnest((SELECT $1::text[]), (SELECT $2::bytea[])) AS told (repository, digest)
  JOIN repositories r ON r.name = told.repository
  JOIN manifests m ON m.repo_id = r.id AND m.digest = told.digest
    AND m.state < 2  -- as the index on live manifests says
    AND m.state = 1
), noted AS (
  INSERT INTO pulls (manifest_id, day)
  SELECT id, now::date FROM pulled, clock
  ORDER BY id  -- so processes do not wait for each other crosswise
  ON CONFLICT (manifest_id) DO UPDATE SET day = EXCLUDED.day
  WHERE pulls.day < EXCLUDED.day  -- once a day and manifest, whoever pulls it
)
SELECT now::date - DATE '1970-01-01',
       extract(epoch FROM now::date + interval '1 day' - now)::float8
FROM clock
