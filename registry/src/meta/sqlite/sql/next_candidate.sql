-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT max(due - now, 0)
FROM clock, promotion_candidates
WHERE policy IN (SELECT value FROM json_each(?1))
  AND request = ''
ORDER BY due, id
LIMIT 1
