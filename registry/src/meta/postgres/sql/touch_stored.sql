-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH stored AS (
  SELECT b.id, b.freed
  FROM blobs b
  WHERE b.digest = $1
    AND b.form <> 0
    AND EXISTS (SELECT FROM repo_blobs l WHERE l.blob_id = b.id)  -- else it is a candidate already
), extended AS (
  UPDATE blobs b
  SET freed = clock_timestamp()
  FROM stored s
  WHERE b.id = s.id
    AND s.freed < clock_timestamp() - make_interval(secs => $2)  -- hot digests would queue on the row
)
SELECT EXISTS (SELECT FROM stored)
