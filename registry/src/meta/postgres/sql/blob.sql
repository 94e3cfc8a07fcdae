-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT e.epoch = $4 AND e.fence = pg_postmaster_start_time() AS ours,
       found.link IS NOT NULL AS found,
       found.*
FROM meta e
LEFT JOIN LATERAL (
  SELECT l.id AS link,
         b.gen AS generation,
         b.form,
         b.tail,
         b.size,
         l.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
  FROM (
    SELECT l.id, l.blob_id, l.touched
    FROM repositories r
    JOIN repo_blobs l ON l.repo_id = r.id
    WHERE r.name = $1
      AND l.digest = $2
      AND l.gen IS NOT NULL  -- else it is hidden
    LIMIT 1  -- see manifest_by_tag
  ) l
  CROSS JOIN LATERAL (SELECT * FROM blobs WHERE id = l.blob_id AND form <> 0 LIMIT 1) b  -- 0: its data is absent
) found ON true
