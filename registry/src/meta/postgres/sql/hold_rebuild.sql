-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO shards AS s (epoch, job, phase, shard, owner, until)
VALUES (0, 'rebuild', 0, '', $1, clock_timestamp() + interval '60 seconds')
ON CONFLICT (epoch, job, shard) DO UPDATE
SET owner = EXCLUDED.owner,
    until = EXCLUDED.until
WHERE s.until < clock_timestamp()  -- the other one is dead
   OR s.owner = $1
