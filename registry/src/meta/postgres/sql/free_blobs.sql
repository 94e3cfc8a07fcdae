-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE blobs
SET freed = clock_timestamp()
WHERE id = ANY (ARRAY(
  SELECT id
  FROM blobs
  WHERE id = ANY ($1)
  ORDER BY id  -- the lock order
  FOR NO KEY UPDATE
))
RETURNING id
