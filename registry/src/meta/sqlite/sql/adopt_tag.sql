-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at, trashed_until,
  prev_epoch, prev_seq, prev_gen)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, iif(?10 IS NULL, NULL, now + ?11), ?8, ?9, ?10
FROM clock
WHERE true
ON CONFLICT (repo_id, name) DO NOTHING
