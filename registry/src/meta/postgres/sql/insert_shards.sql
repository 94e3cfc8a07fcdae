-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO shards (epoch, job, phase, shard)
SELECT $1, 'walk', phase, shard
FROM unnest($2::smallint[], $3::text[]) AS planned (phase, shard)
