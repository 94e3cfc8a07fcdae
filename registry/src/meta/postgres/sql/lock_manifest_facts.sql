-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, state, gen AS generation
FROM manifests
WHERE id = ANY (ARRAY(
  SELECT m.id
  FROM unnest((SELECT $2::bytea[])) AS wanted (digest)
  CROSS JOIN LATERAL (SELECT id FROM manifests WHERE repo_id = $1 AND digest = wanted.digest OFFSET 0) m
))
ORDER BY id  -- the lock order
FOR NO KEY UPDATE
