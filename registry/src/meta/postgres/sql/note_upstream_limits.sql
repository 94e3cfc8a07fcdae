-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO upstreams AS u (name, paused_until, scarce_until)
VALUES ($1, clock_timestamp() + make_interval(secs => $2), clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE
SET paused_until = greatest(u.paused_until, EXCLUDED.paused_until),  -- NULL: it said nothing about that
    scarce_until = coalesce(EXCLUDED.scarce_until, u.scarce_until)
