-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT wanted.place, pulled.day - DATE '1970-01-01'
FROM unnest((SELECT $2::bytea[])) WITH ORDINALITY AS wanted (digest, place)
JOIN repositories r ON r.name = $1
JOIN manifests m ON m.repo_id = r.id AND m.digest = wanted.digest
  AND m.state < 2  -- as the index on live manifests says
  AND m.state = 1
CROSS JOIN LATERAL (
  SELECT max(day) AS day FROM (
    SELECT day FROM pulls WHERE manifest_id = m.id
    UNION ALL
    -- Clients that pull an index pull a child of it.
    SELECT p.day
    FROM manifest_children c
    JOIN manifests child ON child.repo_id = c.repo_id AND child.digest = c.child
      AND child.state < 2
      AND child.state = 1
    JOIN pulls p ON p.manifest_id = child.id
    WHERE c.parent_id = m.id
  ) days
) pulled
WHERE pulled.day IS NOT NULL
