-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE meta
SET claim = max(claim, epoch, ?1) + 1,
  claim_gen = ?2,
  claim_until = (SELECT now FROM clock) + 30000000,
  -- Handed over to us, and no holder came between: neither the lock nor the bucket knows one.
  handed_over = CASE WHEN handed_over = ?4 AND ?1 <= epoch THEN handed_over END
WHERE fence IS NOT ?3  -- ours: nothing to claim
  AND (claim_until IS NULL OR claim_until < (SELECT now FROM clock))  -- another claim stands
RETURNING claim
