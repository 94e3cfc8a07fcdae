-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT c.id, c.policy, r.name AS repository, c.tag, c.digest, c.hash, now - c.since AS waiting, c.tries + 1 AS tries
FROM clock, promotion_candidates c
JOIN repositories r ON r.id = c.repo_id
WHERE c.policy IN (SELECT value FROM json_each(?1))
  AND c.request = ''
  AND c.due <= now
ORDER BY c.due, c.id
LIMIT 1
