-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH RECURSIVE family (root, id, way) AS (
  SELECT m.digest, m.id, 0
  FROM repositories r
  JOIN manifests m ON m.repo_id = r.id
  WHERE r.name = $1
    AND m.digest = ANY ($2)
    AND m.state = 1
  UNION
  SELECT f.root, n.id, n.way
  FROM family f
  JOIN manifests m ON m.id = f.id
  CROSS JOIN LATERAL (
    -- What it refers to, which may have indexes above and children below as well.
    SELECT s.id, 0 AS way
    FROM manifests s
    WHERE f.way = 0 AND s.repo_id = m.repo_id AND s.digest = m.subject AND s.state = 1
    UNION ALL
    SELECT c.parent_id, 1
    FROM manifest_children c
    WHERE f.way < 2 AND c.repo_id = m.repo_id AND c.child = m.digest
    UNION ALL
    SELECT k.id, 2
    FROM manifest_children c
    JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child AND k.state = 1
    WHERE f.way <> 1 AND c.parent_id = m.id
  ) n
)
SELECT f.root, m.digest
FROM family f
JOIN manifests m ON m.id = f.id
UNION
-- One of them is the configuration.
SELECT f.root, l.digest
FROM family f
JOIN manifest_blobs b ON b.manifest_id = f.id
JOIN repo_blobs l ON l.id = b.link_id
