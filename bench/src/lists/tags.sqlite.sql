-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Copies of the one tag that was pushed.
INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2 - 1)
SELECT t.repo_id, printf('t%07d', n), t.manifest_id, t.epoch, t.seq, randomblob(16), t.pushed_at
FROM repositories r
JOIN tags t ON t.repo_id = r.id
CROSS JOIN numbers
WHERE r.name = ?1
