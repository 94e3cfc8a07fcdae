-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name, m.digest, t.epoch, t.seq, t.gen AS generation, t.prev_epoch, t.prev_seq, t.prev_gen AS prev_generation
FROM tags t
JOIN manifests m ON m.id = t.manifest_id
WHERE t.repo_id = $1
  AND t.name = ANY ($2)
