-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH link AS (
  INSERT INTO repo_blobs AS l (repo_id, digest, blob_id, gen, touched)
  VALUES ($1, $2, $3, $4, clock_timestamp())
  ON CONFLICT (repo_id, digest) DO UPDATE
  SET touched = clock_timestamp(),
      gen = coalesce(l.gen, EXCLUDED.gen)  -- a hidden link shows again by our record
  RETURNING l.id, l.gen
), candidate AS (
  INSERT INTO gc_queue (due, kind, ref)
  SELECT clock_timestamp() + make_interval(secs => $5), 'l', id FROM link  -- nothing refers to it yet
)
SELECT gen FROM link
