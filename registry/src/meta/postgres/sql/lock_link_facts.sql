-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, gen AS generation
FROM repo_blobs
WHERE id = ANY (ARRAY(
  SELECT l.id
  FROM unnest((SELECT $2::bytea[])) AS wanted (digest)
  CROSS JOIN LATERAL (SELECT id FROM repo_blobs WHERE repo_id = $1 AND digest = wanted.digest LIMIT 1) l
))
ORDER BY digest  -- the lock order
FOR UPDATE
