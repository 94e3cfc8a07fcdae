-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name, m.digest, t.epoch, t.seq, t.gen AS generation, t.prev_epoch, t.prev_seq, t.prev_gen AS prev_generation
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = $1
  AND (t.name || '/') COLLATE "C" >= $2  -- as the bucket lists records
  AND (t.name || '/') COLLATE "C" <= $3
ORDER BY (t.name || '/') COLLATE "C"
LIMIT $4
