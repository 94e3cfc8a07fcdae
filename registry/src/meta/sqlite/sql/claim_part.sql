-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET owner = ?2,
  begun = (SELECT now FROM clock),
  until = (SELECT now FROM clock) + 60000000
WHERE epoch = 0
  AND job = ?1
  AND shard = (
    SELECT s.shard
    FROM shards s
    WHERE s.epoch = 0
      AND s.job = ?1
      AND NOT s.done
      AND (s.until <= (SELECT now FROM clock) OR s.owner = ?2)  -- ours: we broke off
      -- Its time has come; one that was begun and left is not counted twice.
      AND (?3 <= 0
           OR s.begun IS NOT NULL
           OR (SELECT count(p.begun) <= count(*) * (((SELECT now FROM clock) - min(p.planned)) * 1.0 / ?3)
               FROM shards p
               WHERE p.epoch = 0 AND p.job = ?1))
    ORDER BY s.shard
    LIMIT 1
  )
RETURNING shard
