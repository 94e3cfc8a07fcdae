-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE meta
SET epoch = claim, epoch_gen = claim_gen, fence = ?3, claim_until = NULL
WHERE claim = ?1
  AND claim_gen = ?2  -- ours, not one made after it
  AND epoch < claim
