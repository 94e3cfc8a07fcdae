-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The usual end of a mount as one statement, which is its own transaction: the source sees the blob, and the repository
-- does not yet. All of it is done, or none where that is not so.
WITH ours AS (
  SELECT i.repo_id
  FROM meta, intents i
  WHERE meta.epoch = $1
    AND meta.fence = pg_postmaster_start_time()
    AND i.id = $2  -- else reaped: its keys are queued already
    AND i.epoch = $1
    AND i.gen = $3  -- in another incarnation somebody else's may have this number
    AND i.kind = 'l'
  FOR UPDATE OF i
), source AS (
  -- Through the link again: it may have gone since the mount began.
  SELECT b.id
  FROM ours
  JOIN repositories r ON r.name = $4
  JOIN repo_blobs l ON l.repo_id = r.id
  JOIN blobs b ON b.id = l.blob_id
  WHERE l.digest = $5
    AND l.gen IS NOT NULL
    AND b.form <> 0
  FOR KEY SHARE OF b  -- held against the sweeper of blobs until our link is there
), link AS (
  INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
  SELECT ours.repo_id, $5, source.id, $3, clock_timestamp()
  FROM ours, source
  ON CONFLICT (repo_id, digest) DO NOTHING
  RETURNING id
), taken AS (
  DELETE FROM intents i
  USING link
  WHERE i.id = $2
), candidate AS (
  INSERT INTO gc_queue (due, kind, ref)
  SELECT clock_timestamp() + make_interval(secs => $6), 'l', id  -- nothing refers to it yet
  FROM link
)
SELECT id FROM link
