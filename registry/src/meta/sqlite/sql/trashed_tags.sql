-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT r.name AS repository, t.repo_id, t.name, t.epoch, t.seq, t.gen, t.trashed_until AS until
FROM tags t
JOIN repositories r ON r.id = t.repo_id
WHERE t.trashed_until IS NOT NULL  -- as the index says
  AND t.trashed_until <= (SELECT now FROM clock)
  AND (t.trashed_until, t.repo_id, t.name) > (?1, ?2, ?3)
ORDER BY t.trashed_until, t.repo_id, t.name
LIMIT ?4
