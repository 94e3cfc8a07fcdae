-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A pull of a child is one of each index above it.
WITH RECURSIVE below (root, id) AS (
  SELECT c.parent_id, m.id
  FROM repositories r
  JOIN manifest_children c ON c.repo_id = r.id
  JOIN manifests m ON m.repo_id = c.repo_id AND m.digest = c.child AND m.state = 1
  WHERE r.name = ?1
  UNION
  SELECT below.root, m.id
  FROM below
  JOIN manifest_children c ON c.parent_id = below.id
  JOIN manifests m ON m.repo_id = c.repo_id AND m.digest = c.child AND m.state = 1
), pulled (id, day) AS (
  SELECT below.root, max(p.day)
  FROM below
  CROSS JOIN pulls p ON p.manifest_id = below.id
  GROUP BY below.root
)
SELECT t.name, m.digest, t.gen, t.pushed_at / 1000 AS pushed,
  nullif(max(coalesce(p.day, -1), coalesce(c.day, -1)), -1) AS pulled
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
LEFT JOIN pulls p ON p.manifest_id = m.id
LEFT JOIN pulled c ON c.id = m.id
WHERE r.name = ?1
  AND t.trashed_until IS NULL
ORDER BY t.name
