-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.subject, m.digest, m.gen
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = ?1
  AND m.subject >= ?2
  AND m.subject <= ?3
  AND m.state = 1
ORDER BY m.subject
LIMIT ?4
