-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- manifest_by_digest for many: a list of [repository, digest].
SELECT meta.epoch = ?3 AND meta.fence IS ?4 AS ours,
  m.id IS NOT NULL AS found,
  wanted.key AS place, m.id, m.digest, m.media_type, m.size, m.gen,
  m.touched < (SELECT now FROM clock) - ?2 AS lease_is_old,
  m.body
FROM meta
LEFT JOIN json_each(?1) AS wanted
LEFT JOIN repositories r ON r.name = wanted.value ->> 0
LEFT JOIN manifests m ON m.repo_id = r.id AND m.digest = unhex(wanted.value ->> 1)
  AND m.state = 1  -- live; the index wants to hear that it is below 2
  AND m.state < 2
