-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, gen AS generation, form, tail, size
FROM blobs
WHERE id = ANY (ARRAY(
  SELECT b.id
  FROM unnest((SELECT $1::bytea[])) AS wanted (digest)
  CROSS JOIN LATERAL (SELECT id FROM blobs WHERE digest = wanted.digest LIMIT 1) b
))
ORDER BY id  -- the lock order
FOR UPDATE
