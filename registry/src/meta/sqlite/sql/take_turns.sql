-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO upstreams (name, turns_until)
SELECT ?1, now + ?2
FROM clock
WHERE true
ON CONFLICT (name) DO UPDATE
SET turns_until = max(coalesce(upstreams.turns_until + ?2, 0), excluded.turns_until)  -- idle time is not saved up
WHERE coalesce(upstreams.paused_until <= (SELECT now FROM clock), true)
  AND coalesce(upstreams.turns_until <= (SELECT now FROM clock) + ?3, true)
RETURNING turns_until - ?2 - (SELECT now FROM clock), scarce_until - (SELECT now FROM clock)
