-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A list of digests.
SELECT wanted.key AS place, max(p.day) AS day
FROM json_each(?2) AS wanted
CROSS JOIN repositories r ON r.name = ?1
CROSS JOIN manifests m ON m.repo_id = r.id AND m.digest = unhex(wanted.value)
  AND m.state < 2  -- as the index on live manifests says
  AND m.state = 1
CROSS JOIN pulls p ON p.manifest_id = m.id
  -- Clients that pull an index pull a child of it.
  OR p.manifest_id IN (
    SELECT child.id
    FROM manifest_children c
    JOIN manifests child ON child.repo_id = c.repo_id AND child.digest = c.child
      AND child.state < 2
      AND child.state = 1
    WHERE c.parent_id = m.id
  )
GROUP BY wanted.key
