-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO fetches (what, owner, until, done, total)
SELECT ?1, ?2, now + ?3, ?4, ?5
FROM clock
WHERE true
ON CONFLICT (what) DO UPDATE
SET owner = excluded.owner, until = excluded.until, done = excluded.done, total = excluded.total
WHERE fetches.owner = excluded.owner OR fetches.until < (SELECT now FROM clock)  -- else it is somebody else's
