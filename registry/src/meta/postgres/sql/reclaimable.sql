-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH RECURSIVE going (id) AS (
  SELECT DISTINCT t.manifest_id
  FROM repositories r
  JOIN tags t ON t.repo_id = r.id AND t.name = ANY ($2)
  JOIN manifests m ON m.id = t.manifest_id
  WHERE r.name = $1
    AND t.trashed_until IS NULL
    -- No other tag names it, and no index lists it.
    AND NOT EXISTS (SELECT FROM tags o
                    WHERE o.manifest_id = m.id AND o.trashed_until IS NULL AND o.name <> ALL ($2))
    AND NOT EXISTS (SELECT FROM manifest_children c WHERE c.repo_id = m.repo_id AND c.child = m.digest)
  UNION
  SELECT k.id
  FROM going g
  JOIN manifest_children c ON c.parent_id = g.id
  JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child AND k.state = 1
  WHERE NOT EXISTS (SELECT FROM tags o
                    WHERE o.manifest_id = k.id AND o.trashed_until IS NULL AND o.name <> ALL ($2))
), links (id, blob_id) AS (
  SELECT DISTINCT l.id, l.blob_id
  FROM going g
  JOIN manifest_blobs b ON b.manifest_id = g.id
  JOIN repo_blobs l ON l.id = b.link_id
)
SELECT coalesce(sum(b.size), 0)::bigint
FROM links l
JOIN blobs b ON b.id = l.blob_id
WHERE NOT EXISTS (SELECT FROM manifest_blobs o
                  WHERE o.link_id = l.id AND NOT EXISTS (SELECT FROM going g WHERE g.id = o.manifest_id))
  -- No other repository has it.
  AND NOT EXISTS (SELECT FROM repo_blobs e WHERE e.blob_id = l.blob_id AND e.id <> l.id)
