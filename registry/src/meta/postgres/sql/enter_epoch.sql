-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE meta
SET epoch = claim,
    epoch_gen = claim_gen,
    fence = pg_postmaster_start_time(),
    claim_until = NULL    -- the next incarnation may be claimed at once
WHERE claim = $1
  AND claim_gen = $2      -- nobody has claimed a higher one since
  AND epoch < claim       -- and this one was not entered already
