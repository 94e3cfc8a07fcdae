-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO shards (epoch, job, phase, shard, owner, until)
SELECT 0, 'rebuild', 0, '', ?1, now + 60000000
FROM clock
WHERE true
ON CONFLICT (epoch, job, shard) DO UPDATE
SET owner = excluded.owner, until = excluded.until
WHERE shards.until < (SELECT now FROM clock)  -- the other one is dead
  OR shards.owner = ?1
