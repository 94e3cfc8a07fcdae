-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- blob for many; see manifests_by_tag.
-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT e.epoch = $4 AND e.fence = pg_postmaster_start_time() AS ours,
       found.place IS NOT NULL AS found,
       found.*
FROM meta e
LEFT JOIN LATERAL (
  SELECT wanted.place,
         l.id AS link,
         b.gen AS generation,
         b.form,
         b.tail,
         b.size,
         l.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
  FROM unnest((SELECT $1::text[]), (SELECT $2::bytea[])) WITH ORDINALITY AS wanted (repository, digest, place)
  CROSS JOIN LATERAL (
    SELECT l.*
    FROM repositories r
    JOIN repo_blobs l ON l.repo_id = r.id
    WHERE r.name = wanted.repository
      AND l.digest = wanted.digest
      AND l.gen IS NOT NULL  -- else it is hidden
    LIMIT 1
  ) l
  CROSS JOIN LATERAL (SELECT * FROM blobs WHERE id = l.blob_id AND form <> 0 LIMIT 1) b
) found ON true
