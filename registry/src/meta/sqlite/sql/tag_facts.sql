-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name, t.manifest_id, m.digest, t.epoch, t.seq, t.gen, t.prev_epoch, t.prev_seq, t.prev_gen
FROM json_each(?2) wanted
CROSS JOIN tags t ON t.repo_id = ?1 AND t.name = wanted.value
CROSS JOIN manifests m ON m.id = t.manifest_id
