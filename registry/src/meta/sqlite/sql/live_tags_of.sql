-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name, t.manifest_id, m.digest, t.epoch, t.seq, t.gen, t.prev_epoch, t.prev_seq, t.prev_gen
FROM tags t
JOIN manifests m ON m.id = t.manifest_id
WHERE t.manifest_id = ?1
  AND t.trashed_until IS NULL
ORDER BY t.name
