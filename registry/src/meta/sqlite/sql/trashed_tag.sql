-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.manifest_id, t.prev_epoch, t.prev_seq, t.prev_gen, m.digest, m.state,
  max(coalesce(m.trashed_until, 0) - (SELECT now FROM clock), 0) AS wait
FROM tags t
JOIN manifests m ON m.id = t.manifest_id
WHERE t.repo_id = ?1
  AND t.name = ?2
  AND t.gen = ?3  -- the tombstone that was listed
  AND t.trashed_until <= (SELECT now FROM clock)
