-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- manifest_by_tag for many: a list of [repository, tag]. LEFT JOIN: in the order of the list, and at least one row.
SELECT meta.epoch = ?3 AND meta.fence IS ?4 AS ours,
  m.id IS NOT NULL AS found,
  wanted.key AS place, m.id, m.digest, m.media_type, m.size, m.gen, t.gen AS tag_generation,
  m.touched < (SELECT now FROM clock) - ?2 AS lease_is_old,
  m.body
FROM meta
LEFT JOIN json_each(?1) AS wanted
LEFT JOIN repositories r ON r.name = wanted.value ->> 0
LEFT JOIN tags t ON t.repo_id = r.id AND t.name = wanted.value ->> 1
LEFT JOIN manifests m ON m.id = t.manifest_id
  AND t.trashed_until IS NULL
  AND m.state = 1  -- live
