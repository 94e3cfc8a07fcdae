-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET until = clock_timestamp() + interval '60 seconds'
WHERE epoch = 0
  AND job = $1
  AND shard = $2
  AND owner = $3
  AND NOT done
