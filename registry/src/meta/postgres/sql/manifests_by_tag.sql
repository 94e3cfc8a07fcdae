-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- manifest_by_tag for many. The lists are sub-selects, so that their length is unknown to the planner: one plan
-- for all lengths, made once. LIMIT keeps each look-up one of its own.
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
         t.gen AS tag_generation,
         m.body,
         m.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
  FROM unnest((SELECT $1::text[]), (SELECT $2::text[])) WITH ORDINALITY AS wanted (repository, tag, place)
  CROSS JOIN LATERAL (
    SELECT t.manifest_id, t.gen
    FROM repositories r
    JOIN tags t ON t.repo_id = r.id
    WHERE r.name = wanted.repository
      AND t.name = wanted.tag
      AND t.trashed_until IS NULL
    LIMIT 1
  ) t
  CROSS JOIN LATERAL (SELECT * FROM manifests WHERE id = t.manifest_id AND state = 1 LIMIT 1) m
) found ON true
