-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.repo_id, m.subject, m.body
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = $1
  AND m.digest = $2
  AND m.gen = $3
  AND m.state = 1
