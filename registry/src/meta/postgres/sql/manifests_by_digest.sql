-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- manifest_by_digest for many; see manifests_by_tag.
-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT e.epoch = $4 AND e.fence = pg_postmaster_start_time() AS ours,
       found.place IS NOT NULL AS found,
       found.*
FROM meta e
LEFT JOIN LATERAL (
  SELECT wanted.place,
         m.id,
         m.digest,
         m.media_type,
         m.size,
         m.gen AS generation,
         m.body,
         m.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
  FROM unnest((SELECT $1::text[]), (SELECT $2::bytea[])) WITH ORDINALITY AS wanted (repository, digest, place)
  CROSS JOIN LATERAL (
    SELECT m.*
    FROM repositories r
    JOIN manifests m ON m.repo_id = r.id
    WHERE r.name = wanted.repository
      AND m.digest = wanted.digest
      AND m.state < 2  -- as the index on live manifests says
      AND m.state = 1
    LIMIT 1
  ) m
) found ON true
