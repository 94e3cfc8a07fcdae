-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always one row: whether the epoch is ours is part of the answer.
SELECT meta.epoch = ?4 AND meta.fence IS ?5 AS ours,
  m.id IS NOT NULL AS found,
  m.id, m.digest, m.media_type, m.size, m.gen, NULL AS tag_generation,
  m.touched < (SELECT now FROM clock) - ?3 AS lease_is_old,
  m.body
FROM meta
LEFT JOIN repositories r ON r.name = ?1
LEFT JOIN manifests m ON m.repo_id = r.id
  AND m.digest = ?2
  AND m.state = 1  -- live; the index wants to hear that it is below 2
  AND m.state < 2
