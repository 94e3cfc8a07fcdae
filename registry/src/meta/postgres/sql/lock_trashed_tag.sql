-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT manifest_id,
       prev_epoch,
       prev_seq,
       prev_gen AS prev_generation
FROM tags
WHERE repo_id = $1
  AND name = $2
  AND gen = $3  -- the tombstone that was listed
  AND trashed_until <= statement_timestamp()
FOR UPDATE SKIP LOCKED
