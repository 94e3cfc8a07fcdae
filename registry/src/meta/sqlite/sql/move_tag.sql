-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE tags
SET manifest_id = ?3, epoch = ?4, seq = ?5, gen = ?6, pushed_at = ?7,
  trashed_until = NULL, prev_epoch = NULL, prev_seq = NULL, prev_gen = NULL
WHERE repo_id = ?1
  AND name = ?2
  AND (epoch, seq) < (?4, ?5)  -- older than ours
