-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Of each lane its first row only.
SELECT o.id, o.lane
FROM outbox o
WHERE o.due <= (SELECT now FROM clock)
  AND (o.lane IS NULL OR NOT EXISTS (SELECT 1 FROM outbox p WHERE p.lane = o.lane AND p.id < o.id))
ORDER BY o.due, o.id
LIMIT ?1
