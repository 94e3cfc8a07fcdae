-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The hot path: one round trip, the body included.
-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT e.epoch = $4 AND e.fence = pg_postmaster_start_time() AS ours,
       found.id IS NOT NULL AS found,
       found.*
FROM meta e
LEFT JOIN LATERAL (
  SELECT m.id,
         m.digest,
         m.media_type,
         m.size,
         m.gen AS generation,
         t.gen AS tag_generation,
         m.body,
         m.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
  FROM (
    SELECT t.manifest_id, t.gen
    FROM repositories r
    JOIN tags t ON t.repo_id = r.id
    WHERE r.name = $1
      AND t.name = $2
      AND t.trashed_until IS NULL  -- else the row is a tombstone
    LIMIT 1  -- there is one at most; said, so that a plan made before there are statistics begins here too
  ) t
  CROSS JOIN LATERAL (SELECT * FROM manifests WHERE id = t.manifest_id AND state = 1 LIMIT 1) m
) found ON true
