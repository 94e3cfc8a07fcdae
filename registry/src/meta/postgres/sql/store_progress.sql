-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET off = $3,
    parts = $4,
    spec = $5,
    hash = $6,
    tails = $7,
    tail_sizes = $8,
    -- What was staged and does not count any more: it went into a part, or its request did not end well.
    spent = ARRAY(SELECT unnest(spent || tails || lease) EXCEPT SELECT unnest($7::int[])),
    lock_token = NULL,
    lock_until = NULL,
    expires_at = clock_timestamp() + expiry
WHERE id = $1
  AND lock_token = $2
  AND plan_digest IS NULL  -- closing: nothing may come after the plan
