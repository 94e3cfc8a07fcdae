-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET until = (SELECT now FROM clock) + 60000000
WHERE epoch = 0
  AND job = ?1
  AND shard = ?2
  AND owner = ?3
  AND NOT done
