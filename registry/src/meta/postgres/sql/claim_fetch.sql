-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO fetches AS f (what, owner, until, done, total)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4, $5)
ON CONFLICT (what) DO UPDATE
SET owner = EXCLUDED.owner, until = EXCLUDED.until, done = EXCLUDED.done, total = EXCLUDED.total
WHERE f.owner = EXCLUDED.owner OR f.until < clock_timestamp()  -- else it is somebody else's
