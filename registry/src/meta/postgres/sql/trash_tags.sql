-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The rows stay: a push that pinned a lower version must lose here as it loses in the bucket.
UPDATE tags t
SET prev_epoch = t.epoch,
    prev_seq = t.seq,
    prev_gen = t.gen,
    epoch = $2,
    seq = w.seq,
    gen = w.gen,
    trashed_until = clock_timestamp() + make_interval(secs => $3)
FROM unnest($4::text[], $5::bigint[], $6::uuid[]) AS w (name, seq, gen)
WHERE t.repo_id = $1
  AND t.name = w.name
