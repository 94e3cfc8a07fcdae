-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As due_removals, of those that begin with the writing of evidence.
SELECT o.id, o.lane
FROM outbox o
WHERE o.due <= (SELECT now FROM clock)
  AND substr(o.steps, 1, 3) = '["+'
  AND (o.lane IS NULL OR NOT EXISTS (SELECT 1 FROM outbox p WHERE p.lane = o.lane AND p.id < o.id))
ORDER BY o.due, o.id
LIMIT ?1
