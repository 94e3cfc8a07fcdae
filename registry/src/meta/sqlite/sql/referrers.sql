-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT meta.epoch = ?6 AND meta.fence IS ?7 AS ours,
  m.id IS NOT NULL AS found,
  m.gen, m.digest, m.media_type, m.size, m.artifact_type, m.annotations
FROM meta
LEFT JOIN repositories r ON r.name = ?1
LEFT JOIN manifests m ON m.repo_id = r.id
  AND m.subject = ?2
  AND m.state = 1  -- live
  AND m.gen < ?4
  AND (?3 = '[]' OR m.artifact_type IN (SELECT value FROM json_each(?3)))
ORDER BY m.gen DESC  -- not ids: a database that is made again has others
LIMIT max(?5, 1)
