-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO upstreams AS u (name, turns_until)
VALUES ($1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (name) DO UPDATE
SET turns_until = greatest(u.turns_until + make_interval(secs => $2), EXCLUDED.turns_until)  -- idle time is not saved up
WHERE coalesce(u.paused_until <= clock_timestamp(), true)
  AND coalesce(u.turns_until <= clock_timestamp() + make_interval(secs => $3), true)
RETURNING extract(epoch FROM u.turns_until - make_interval(secs => $2) - clock_timestamp())::float8,
          extract(epoch FROM u.scarce_until - clock_timestamp())::float8
