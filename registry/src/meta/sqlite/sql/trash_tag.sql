-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What was the record is hidden by the tombstone, whose version is the row's from now on.
UPDATE tags
SET prev_epoch = epoch, prev_seq = seq, prev_gen = gen,
  epoch = ?3, seq = ?4, gen = ?5,
  trashed_until = (SELECT now FROM clock) + ?6
WHERE repo_id = ?1
  AND name = ?2
  AND trashed_until IS NULL
