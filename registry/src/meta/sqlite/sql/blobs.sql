-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- blob for many: a list of [repository, digest].
SELECT meta.epoch = ?3 AND meta.fence IS ?4 AS ours,
  b.id IS NOT NULL AS found,
  wanted.key AS place, l.id, b.gen, b.form, b.tail, b.size,
  l.touched < (SELECT now FROM clock) - ?2 AS lease_is_old
FROM meta
LEFT JOIN json_each(?1) AS wanted
LEFT JOIN repositories r ON r.name = wanted.value ->> 0
LEFT JOIN repo_blobs l ON l.repo_id = r.id AND l.digest = unhex(wanted.value ->> 1)
LEFT JOIN blobs b ON b.id = l.blob_id
  AND l.gen IS NOT NULL  -- visible
  AND b.form <> 0  -- stored
