-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Waits for pins that hold it as a child, and for its publishers.
SELECT m.repo_id, m.id, m.gen
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = $1
  AND m.digest = $2
  AND m.state = 1
FOR UPDATE OF m
