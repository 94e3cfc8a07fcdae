-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH RECURSIVE wanted (name) AS (
  SELECT value FROM json_each(?2)
), going (id) AS (
  SELECT t.manifest_id
  FROM repositories r
  CROSS JOIN wanted
  CROSS JOIN tags t ON t.repo_id = r.id AND t.name = wanted.name
  JOIN manifests m ON m.id = t.manifest_id
  WHERE r.name = ?1
    AND t.trashed_until IS NULL
    -- No other tag names it, and no index lists it.
    AND NOT EXISTS (SELECT 1 FROM tags o
                    WHERE o.manifest_id = m.id AND o.trashed_until IS NULL AND o.name NOT IN (SELECT name FROM wanted))
    AND NOT EXISTS (SELECT 1 FROM manifest_children c WHERE c.repo_id = m.repo_id AND c.child = m.digest)
  UNION
  SELECT k.id
  FROM going
  JOIN manifest_children c ON c.parent_id = going.id
  JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child AND k.state = 1
  WHERE NOT EXISTS (SELECT 1 FROM tags o
                    WHERE o.manifest_id = k.id AND o.trashed_until IS NULL AND o.name NOT IN (SELECT name FROM wanted))
), links (id, blob_id) AS (
  SELECT DISTINCT l.id, l.blob_id
  FROM going
  CROSS JOIN manifest_blobs b ON b.manifest_id = going.id  -- in this order
  CROSS JOIN repo_blobs l ON l.id = b.link_id
)
SELECT coalesce(sum(b.size), 0)
FROM links
CROSS JOIN blobs b ON b.id = links.blob_id
WHERE NOT EXISTS (SELECT 1 FROM manifest_blobs o
                  WHERE o.link_id = links.id AND o.manifest_id NOT IN (SELECT id FROM going))
  -- No other repository has it.
  AND NOT EXISTS (SELECT 1 FROM repo_blobs e WHERE e.blob_id = links.blob_id AND e.id <> links.id)
