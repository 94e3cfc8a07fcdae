-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always one row: whether the epoch is ours is part of the answer.
SELECT meta.epoch = ?4 AND meta.fence IS ?5 AS ours,
  b.id IS NOT NULL AS found,
  l.id, b.gen, b.form, b.tail, b.size,
  l.touched < (SELECT now FROM clock) - ?3 AS lease_is_old
FROM meta
LEFT JOIN repositories r ON r.name = ?1
LEFT JOIN repo_blobs l ON l.repo_id = r.id
  AND l.digest = ?2
  AND l.gen IS NOT NULL  -- visible
LEFT JOIN blobs b ON b.id = l.blob_id
  AND b.form <> 0  -- stored
