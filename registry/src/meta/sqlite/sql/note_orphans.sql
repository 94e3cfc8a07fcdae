-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO orphans (key, first_seen, last_seen)
SELECT DISTINCT value, now, now
FROM json_each(?1), clock
WHERE true
ON CONFLICT (key) DO UPDATE
SET last_seen = excluded.last_seen
RETURNING key, first_seen <= (SELECT now FROM clock) - ?2
