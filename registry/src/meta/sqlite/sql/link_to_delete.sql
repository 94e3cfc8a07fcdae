-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT l.id, l.gen, l.blob_id,
  EXISTS (
    SELECT 1
    FROM manifest_blobs mb
    JOIN manifests m ON m.id = mb.manifest_id
    WHERE mb.link_id = l.id
      AND m.state < 2  -- pending or live: deleted manifests refer to nothing
  ) OR EXISTS (
    SELECT 1
    FROM manifest_children c
    JOIN manifests p ON p.id = c.parent_id
    WHERE c.repo_id = l.repo_id
      AND c.child = l.digest  -- an index may list blobs
      AND p.state < 2
  ) AS referenced,
  EXISTS (SELECT 1 FROM manifest_blobs mb WHERE mb.link_id = l.id)
  OR EXISTS (SELECT 1 FROM manifest_children c WHERE c.repo_id = l.repo_id AND c.child = l.digest) AS held
FROM repositories r
JOIN repo_blobs l ON l.repo_id = r.id
WHERE r.name = ?1
  AND l.digest = ?2
  AND l.gen IS NOT NULL  -- visible
