-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT p.manifest_id, r.name, m.digest, p.day
FROM pulls p
JOIN manifests m ON m.id = p.manifest_id AND m.state = 1
JOIN repositories r ON r.id = m.repo_id
WHERE p.manifest_id > ?1
ORDER BY p.manifest_id
LIMIT ?2
