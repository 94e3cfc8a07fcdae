-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH parents AS (
  SELECT m.state
  FROM manifest_blobs f
  JOIN manifests m ON m.id = f.manifest_id
  WHERE f.link_id = $1
  UNION ALL
  SELECT m.state
  FROM manifest_children c
  JOIN manifests m ON m.id = c.parent_id
  WHERE c.repo_id = $2
    AND c.child = $3  -- children may be blobs
)
SELECT coalesce(bool_or(state < 2), false) AS wanted,  -- live or pending: a client is refused
       count(*) > 0 AS held                            -- the trash, too: the link stays, hidden
FROM parents
