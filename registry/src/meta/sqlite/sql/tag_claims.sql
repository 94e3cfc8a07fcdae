-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name, t.manifest_id, m.digest, t.epoch, t.seq, t.gen, t.prev_epoch, t.prev_seq, t.prev_gen
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = ?1
  AND t.name || '/' >= ?2  -- as the bucket lists records
  AND t.name || '/' <= ?3
ORDER BY t.name || '/'
LIMIT ?4
