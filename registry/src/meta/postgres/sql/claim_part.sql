-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET owner = $2,
    begun = clock_timestamp(),
    until = clock_timestamp() + interval '60 seconds'
WHERE epoch = 0
  AND job = $1
  AND shard = (
    SELECT s.shard
    FROM shards s
    CROSS JOIN (
      SELECT count(*) AS total, count(begun) AS begun, min(planned) AS planned
      FROM shards
      WHERE epoch = 0 AND job = $1
    ) AS pass
    WHERE s.epoch = 0
      AND s.job = $1
      AND NOT s.done
      AND (s.until <= clock_timestamp() OR s.owner = $2)  -- ours: we broke off
      -- Its time has come; one that was begun and left is not counted twice.
      AND ($3 <= 0::float8
           OR s.begun IS NOT NULL
           OR pass.begun <= pass.total * extract(epoch FROM clock_timestamp() - pass.planned) / $3)
    ORDER BY s.shard
    LIMIT 1
    FOR UPDATE OF s SKIP LOCKED
  )
RETURNING shard
