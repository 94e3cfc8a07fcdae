-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT l.id, r.name AS repository, l.digest, l.gen, l.blob_id,
  max(l.touched, coalesce((SELECT walked_at FROM meta), 0)) + ?2 - (SELECT now FROM clock) AS wait,
  EXISTS (SELECT 1 FROM manifest_blobs f WHERE f.link_id = l.id)
  -- children may be blobs, and may come after their index
  OR EXISTS (SELECT 1 FROM manifest_children c WHERE c.repo_id = l.repo_id AND c.child = l.digest) AS held
FROM json_each(?1) wanted
CROSS JOIN repo_blobs l ON l.id = wanted.value
CROSS JOIN repositories r ON r.id = l.repo_id
