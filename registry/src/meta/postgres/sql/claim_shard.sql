-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET owner = $2,
    until = clock_timestamp() + interval '60 seconds'
WHERE epoch = $1
  AND job = 'walk'
  AND shard = (
    SELECT shard
    FROM shards
    WHERE epoch = $1
      AND job = 'walk'
      AND NOT done
      AND (until IS NULL OR until < clock_timestamp() OR owner = $2)  -- ours: we broke off
      -- What is of a later phase waits until all before it is done.
      AND phase = (SELECT min(phase) FROM shards WHERE epoch = $1 AND job = 'walk' AND NOT done)
    ORDER BY shard
    LIMIT 1
    FOR UPDATE SKIP LOCKED
  )
RETURNING phase, shard
