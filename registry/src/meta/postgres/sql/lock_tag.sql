-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT manifest_id,
       epoch,
       seq,
       gen AS generation,
       trashed_until IS NOT NULL AS trashed,
       prev_epoch,
       prev_seq,
       prev_gen AS prev_generation
FROM tags
WHERE repo_id = $1
  AND name = $2
FOR UPDATE
