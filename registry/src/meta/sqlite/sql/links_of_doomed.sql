-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT f.link_id
FROM json_each(?1) wanted
CROSS JOIN manifest_blobs f ON f.manifest_id = wanted.value
UNION
SELECT l.id
FROM json_each(?1) wanted
CROSS JOIN manifest_children c ON c.parent_id = wanted.value
CROSS JOIN repo_blobs l ON l.repo_id = c.repo_id AND l.digest = c.child  -- children may be blobs
