-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

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
         m.body,
         m.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
  FROM repositories r
  JOIN manifests m ON m.repo_id = r.id
  WHERE r.name = $1
    AND m.digest = $2
    AND m.state < 2  -- as the index on live manifests says
    AND m.state = 1
) found ON true
