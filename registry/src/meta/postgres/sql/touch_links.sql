-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE repo_blobs
SET touched = clock_timestamp()
WHERE id = ANY (ARRAY(
  SELECT id
  FROM repo_blobs
  WHERE id = ANY ($1)
  ORDER BY repo_id, digest  -- the lock order
  FOR NO KEY UPDATE
))
