-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The time in `until` says that somebody is at it; it is over already.
INSERT INTO shards (epoch, job, phase, shard, until)
SELECT 0, $1, 0, part, clock_timestamp()
FROM unnest($2::text[]) AS part
