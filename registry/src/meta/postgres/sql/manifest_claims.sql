-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.digest, m.gen AS generation, m.state = 1 AS live, m.size
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = $1
  AND m.digest >= $2
  AND m.digest <= $3
ORDER BY m.digest
LIMIT $4
