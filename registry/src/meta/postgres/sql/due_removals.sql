-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Of each lane its first row only. Statement time, which an index can be searched by.
SELECT o.id, o.lane
FROM outbox o
WHERE o.due <= statement_timestamp()
  AND (o.lane IS NULL OR NOT EXISTS (SELECT FROM outbox p WHERE p.lane = o.lane AND p.id < o.id))
ORDER BY o.due, o.id
LIMIT $1
FOR UPDATE OF o SKIP LOCKED
