-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT f.link_id
FROM manifest_blobs f
WHERE f.manifest_id = ANY ($1)
UNION
SELECT l.id
FROM manifest_children c
JOIN repo_blobs l ON l.repo_id = c.repo_id AND l.digest = c.child  -- children may be blobs
WHERE c.parent_id = ANY ($1)
