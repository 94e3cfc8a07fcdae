-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As blob_facts.
SELECT t.name, m.digest, t.epoch, t.seq, t.gen AS generation, t.prev_epoch, t.prev_seq, t.prev_gen AS prev_generation
FROM unnest((SELECT $2::text[])) AS wanted (name)
CROSS JOIN LATERAL (SELECT * FROM tags WHERE repo_id = $1 AND name = wanted.name LIMIT 1) t
CROSS JOIN LATERAL (SELECT digest FROM manifests WHERE id = t.manifest_id LIMIT 1) m
