-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads u
SET lock_token = $3,
    lock_until = clock_timestamp() + make_interval(secs => $4),
    plan_digest = $5,
    plan_form = $6,
    plan_tail = $7,
    plan_size = $8,
    expires_at = clock_timestamp() + expiry
WHERE u.id = $1
  AND u.lease = $2  -- every request that takes it has one of its own
  AND u.lock_token IS NULL
  AND u.expires_at > clock_timestamp()
  -- Else what was written under its generation may be more than the row says.
  AND EXISTS (SELECT FROM meta m WHERE m.epoch = u.epoch AND m.fence = pg_postmaster_start_time())
