-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE tags
SET manifest_id = $3,
    epoch = $4,
    seq = $5,
    gen = $6,
    pushed_at = timestamptz 'epoch' + $7 * interval '1 millisecond',
    trashed_until = NULL,
    prev_epoch = NULL,
    prev_seq = NULL,
    prev_gen = NULL
WHERE repo_id = $1
  AND name = $2
