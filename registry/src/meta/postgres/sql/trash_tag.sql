-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The row stays: a push that pinned a lower version must lose here as it loses in the bucket.
UPDATE tags
SET prev_epoch = epoch,
    prev_seq = seq,
    prev_gen = gen,
    epoch = $3,
    seq = $4,
    gen = $5,
    trashed_until = clock_timestamp() + make_interval(secs => $6)
WHERE repo_id = $1
  AND name = $2
