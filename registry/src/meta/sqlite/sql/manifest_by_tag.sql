-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.digest, m.media_type, m.size, m.gen,
  m.touched < (SELECT now FROM clock) - ?3 AS lease_is_old,
  m.body
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = ?1
  AND t.name = ?2
  AND t.trashed_until IS NULL
  AND m.state = 1  -- live
