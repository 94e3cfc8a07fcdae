-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always one row: whether the epoch is ours is part of the answer.
SELECT meta.epoch = ?4 AND meta.fence IS ?5 AS ours,
  m.id IS NOT NULL AS found,
  m.id, m.digest, m.media_type, m.size, m.gen, t.gen AS tag_generation,
  m.touched < (SELECT now FROM clock) - ?3 AS lease_is_old,
  m.body
FROM meta
LEFT JOIN repositories r ON r.name = ?1
LEFT JOIN tags t ON t.repo_id = r.id
  AND t.name = ?2
  AND t.trashed_until IS NULL
LEFT JOIN manifests m ON m.id = t.manifest_id
  AND m.state = 1  -- live
