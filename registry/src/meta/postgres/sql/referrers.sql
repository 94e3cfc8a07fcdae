-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT e.epoch = $6 AND e.fence = pg_postmaster_start_time() AS ours,
       m.gen IS NOT NULL AS found,
       m.*
FROM meta e
LEFT JOIN LATERAL (
  SELECT m.gen,
         m.digest,
         m.media_type,
         m.size,
         m.artifact_type,
         m.annotations
  FROM manifests m
  -- One repository, so that the index has them in their order.
  WHERE m.repo_id = (SELECT id FROM repositories WHERE name = $1)
    AND m.subject = $2
    AND m.state = 1
    AND (cardinality($3::text[]) = 0 OR m.artifact_type = ANY ($3))
    AND m.gen < $4
  ORDER BY m.gen DESC  -- not ids: a database that is made again has others
  LIMIT $5
) m ON true
ORDER BY m.gen DESC
