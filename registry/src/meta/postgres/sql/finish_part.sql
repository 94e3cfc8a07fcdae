-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH part AS (
  UPDATE shards
  SET done = true,
      until = clock_timestamp(),
      findings = $4
  WHERE epoch = 0
    AND job = $1
    AND shard = $2
    AND owner = $3
    AND NOT done
  RETURNING shard, begun
), forgotten AS (
  -- They have a row by now, or are gone.
  DELETE FROM orphans o
  USING part
  WHERE starts_with(o.key, part.shard)
    AND o.last_seen < part.begun
)
SELECT shard FROM part
