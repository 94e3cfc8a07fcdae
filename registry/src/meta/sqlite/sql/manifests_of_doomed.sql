-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT k.id
FROM manifest_children c
JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child
WHERE c.parent_id = ?1
  AND k.state = 1
UNION
SELECT s.id
FROM manifests m
JOIN manifests s ON s.repo_id = m.repo_id AND s.subject = m.digest  -- referrers
WHERE m.id = ?1
  AND s.state = 1
