-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.repo_id, m.gen,
  EXISTS (
    SELECT 1
    FROM manifest_children c
    JOIN manifests p ON p.id = c.parent_id
    WHERE c.repo_id = m.repo_id
      AND c.child = m.digest
      AND p.state < 2  -- pending or live: deleted indexes refer to nothing
  ) AS referenced
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = ?1
  AND m.digest = ?2
  AND m.state = 1
  AND m.state < 2  -- for the index
