-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET off = $3,
    parts = $4,
    spec = $5,
    hash = $6,
    tails = $7,
    tail_sizes = $8,
    spent = ARRAY(SELECT unnest(spent || tails) EXCEPT SELECT unnest($7::int[])),
    plan_digest = $9,
    plan_form = $10,
    plan_tail = $11,
    plan_size = $12,
    expires_at = clock_timestamp() + expiry
WHERE id = $1
  AND lock_token = $2
  -- The same plan may be recorded again, never another: somebody may be carrying it out.
  AND (plan_digest IS NULL
       OR (plan_digest, plan_form, plan_size) = ($9, $10, $12) AND plan_tail IS NOT DISTINCT FROM $11)
