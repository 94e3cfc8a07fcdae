-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Against their deletion until the tag names them.
SELECT id, digest, state
FROM manifests
WHERE id = ANY (ARRAY(
  SELECT m.id
  FROM unnest((SELECT $2::bytea[])) AS wanted (digest)
  CROSS JOIN LATERAL (SELECT id FROM manifests WHERE repo_id = $1 AND digest = wanted.digest OFFSET 0) m
))
  AND state IN (1, 2)
ORDER BY id  -- the lock order
FOR SHARE
