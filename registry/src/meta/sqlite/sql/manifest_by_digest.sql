-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.digest, m.media_type, m.size, m.gen,
  m.touched < (SELECT now FROM clock) - ?3 AS lease_is_old,
  m.body
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = ?1
  AND m.digest = ?2
  AND m.state = 1  -- live; the index wants to hear that it is below 2
  AND m.state < 2
