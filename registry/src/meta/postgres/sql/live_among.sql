-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.digest
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = $1
  AND m.digest = ANY ($2)
  AND m.state = 1
