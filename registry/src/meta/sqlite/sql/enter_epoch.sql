-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE meta
SET epoch = claim, epoch_gen = claim_gen, fence = ?3, claim_until = NULL,
  -- Leases that clients were told of may be lost: all begin anew when the walk ends. Not if it was handed over.
  walked_at = CASE WHEN handed_over IS NOT NULL THEN walked_at END,
  handed_over = NULL
WHERE claim = ?1
  AND claim_gen = ?2  -- ours, not one made after it
  AND epoch < claim
