-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A pin of a manifest without children, up to its intent: no row when the repository is new, a blob is missing or
-- the epoch is over. What is found is held then all the same.
-- One statement: what it inserts refers to rows that it holds, in the lock order. A sweeper that holds one of them
-- is waited for, and the row looked at again.
WITH repository AS (
  SELECT r.id
  FROM meta, repositories r
  WHERE meta.epoch = $1
    AND meta.fence = pg_postmaster_start_time()
    AND r.name = $2
  FOR KEY SHARE OF r  -- before a place in the order: a mirror that copies a tag waits for us, or we for it
), links AS (
  SELECT l.id
  FROM repository r
  JOIN repo_blobs l ON l.repo_id = r.id
  JOIN blobs b ON b.id = l.blob_id
  WHERE l.digest = ANY ($3::bytea[])
    AND l.gen IS NOT NULL  -- else it is hidden
    AND b.form <> 0        -- else its data is absent
  ORDER BY l.digest        -- the lock order
  FOR KEY SHARE OF l       -- held against the sweeper of links, and against a client's delete
), manifest AS (
  INSERT INTO manifests (repo_id, digest, state, pending_until, media_type, artifact_type, subject, annotations, size, body)
  SELECT r.id, $4, 0, clock_timestamp() + make_interval(secs => $12), $5, $6, $7, $8, $9, $10
  FROM repository r
  WHERE (SELECT count(*) FROM links) = cardinality($3::bytea[])
  ON CONFLICT (repo_id, digest) WHERE state < 2 DO UPDATE
  SET touched = clock_timestamp(),
      pending_until = CASE WHEN manifests.state = 0 THEN EXCLUDED.pending_until END
  RETURNING id, repo_id, state = 0 AS pending
), listed AS (
  INSERT INTO manifest_blobs (manifest_id, link_id)
  SELECT m.id, l.id
  FROM manifest m, links l
  ON CONFLICT DO NOTHING  -- another push of the same manifest has made them
)
SELECT m.repo_id,
       m.id,
       m.pending,
       wanted.name,
       -- After all locks: so a later version is one that saw more.
       CASE WHEN wanted.name IS NOT NULL THEN nextval('versions') END AS seq,
       greatest(
         floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
         floor(extract(epoch FROM t.pushed_at) * 1000)::bigint + 1
       ) AS milliseconds
FROM manifest m
LEFT JOIN unnest($11::text[]) AS wanted (name) ON true
LEFT JOIN tags t ON t.repo_id = m.repo_id AND t.name = wanted.name
