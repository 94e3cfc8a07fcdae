-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The usual commit as one statement, which is its own transaction: the content is new, and the upload leaves
-- nothing behind. All of it is done, or none where that is not so.
WITH ours AS (
  SELECT u.id, u.repo_id
  FROM meta, uploads u
  WHERE meta.epoch = $1
    AND meta.fence = pg_postmaster_start_time()
    AND u.id = $2
    AND u.lock_token = $3  -- else taken over, or reaped
    AND (u.multipart_id IS NULL OR $7::smallint = 2)
    AND (u.tails || u.spent) <@ ARRAY[$8::int]  -- nothing was staged but what is the blob now
    AND NOT EXISTS (SELECT FROM blobs WHERE digest = $4)  -- before anything is locked, so that nothing is written
  FOR UPDATE OF u
), stored AS (
  INSERT INTO blobs (digest, size, gen, form, tail)
  SELECT $4, $5, $6, $7, $8
  FROM ours
  ON CONFLICT (digest) DO NOTHING  -- somebody was faster: none of it
  RETURNING id
), ended AS (
  DELETE FROM uploads u
  USING stored
  WHERE u.id = $2
), link AS (
  -- Nobody else sees the new row: it needs no lock, and has no other link.
  INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
  SELECT ours.repo_id, $4, stored.id, $9, clock_timestamp()
  FROM ours, stored
  RETURNING id
), candidate AS (
  INSERT INTO gc_queue (due, kind, ref)
  SELECT clock_timestamp() + make_interval(secs => $10), 'l', id  -- nothing refers to it yet
  FROM link
)
SELECT id FROM link
