-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE meta
SET claim = greatest(claim, epoch, $1) + 1,  -- above every epoch that may be in the bucket, and above crashed claims
    claim_gen = $2,
    claim_until = clock_timestamp() + interval '30 seconds'
WHERE fence <> pg_postmaster_start_time()    -- the incarnation is not known yet
  AND (claim_until IS NULL OR claim_until < clock_timestamp())
RETURNING claim
