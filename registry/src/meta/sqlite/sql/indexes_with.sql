-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT p.digest
FROM repositories r
JOIN manifest_children c ON c.repo_id = r.id
JOIN manifests p ON p.id = c.parent_id
WHERE r.name = ?1
  AND c.child = ?2
  AND p.state = 1  -- live
LIMIT ?3
