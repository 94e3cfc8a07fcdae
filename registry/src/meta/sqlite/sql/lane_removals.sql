-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The first of each lane: each waits for the one before it.
SELECT o.lane, o.id, o.due <= (SELECT now FROM clock) AS is_due
FROM json_each(?1) wanted
CROSS JOIN outbox o ON o.id IN (SELECT id FROM outbox WHERE lane = wanted.value ORDER BY id LIMIT ?2)
ORDER BY o.id
