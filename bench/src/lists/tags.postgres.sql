-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Copies of the one tag that was pushed.
INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)
SELECT t.repo_id, 't' || lpad(n::text, 7, '0'), t.manifest_id, t.epoch, t.seq, gen_random_uuid(), t.pushed_at
FROM repositories r
JOIN tags t ON t.repo_id = r.id
CROSS JOIN generate_series(0, $2 - 1) n
WHERE r.name = $1
