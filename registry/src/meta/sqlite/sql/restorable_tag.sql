-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.digest, m.media_type, m.gen AS generation, m.body, t.gen AS tombstone
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = ?1
  AND t.name = ?2
  AND t.trashed_until IS NOT NULL
  AND m.state IN (1, 2)  -- live or trashed
