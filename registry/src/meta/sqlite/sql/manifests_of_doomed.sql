-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT k.id
FROM json_each(?1) wanted
CROSS JOIN manifest_children c ON c.parent_id = wanted.value
CROSS JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child
WHERE k.state = 1
UNION
SELECT s.id
FROM json_each(?1) wanted
CROSS JOIN manifests m ON m.id = wanted.value
CROSS JOIN manifests s ON s.repo_id = m.repo_id AND s.subject = m.digest  -- referrers
WHERE s.state = 1
