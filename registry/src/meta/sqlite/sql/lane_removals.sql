-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, due <= (SELECT now FROM clock) AS is_due
FROM outbox
WHERE lane = ?1
ORDER BY id
LIMIT ?2
