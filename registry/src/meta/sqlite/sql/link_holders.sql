-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.digest, m.state
FROM manifest_blobs f
JOIN manifests m ON m.id = f.manifest_id
WHERE f.link_id = ?1
UNION ALL
SELECT p.digest, p.state
FROM manifest_children c
JOIN manifests p ON p.id = c.parent_id
WHERE c.repo_id = ?2
  AND c.child = ?3  -- children may be blobs
