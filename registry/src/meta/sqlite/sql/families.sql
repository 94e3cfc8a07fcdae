-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH RECURSIVE family (root, id, way) AS (
  SELECT m.digest, m.id, 0
  FROM json_each(?2) wanted
  CROSS JOIN repositories r ON r.name = ?1
  CROSS JOIN manifests m ON m.repo_id = r.id AND m.digest = unhex(wanted.value)
  WHERE m.state = 1
  UNION
  -- What it refers to, which may have indexes above and children below as well.
  SELECT family.root, s.id, 0
  FROM family
  CROSS JOIN manifests m ON m.id = family.id
  JOIN manifests s ON s.repo_id = m.repo_id AND s.digest = m.subject AND s.state = 1
  WHERE family.way = 0
  UNION
  SELECT family.root, c.parent_id, 1
  FROM family
  CROSS JOIN manifests m ON m.id = family.id
  JOIN manifest_children c ON c.repo_id = m.repo_id AND c.child = m.digest
  WHERE family.way < 2
  UNION
  SELECT family.root, k.id, 2
  FROM family
  CROSS JOIN manifest_children c ON c.parent_id = family.id
  JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child AND k.state = 1
  WHERE family.way <> 1
)
SELECT family.root, m.digest
FROM family
CROSS JOIN manifests m ON m.id = family.id  -- in this order
UNION
-- One of them is the configuration.
SELECT family.root, l.digest
FROM family
CROSS JOIN manifest_blobs b ON b.manifest_id = family.id
CROSS JOIN repo_blobs l ON l.id = b.link_id
