-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT meta.epoch = ?6 AND meta.fence IS ?7 AS ours,
  page.gen IS NOT NULL AS found,
  page.*
FROM meta
LEFT JOIN (
  SELECT m.gen, m.digest, m.media_type, m.size, m.artifact_type, m.annotations
  FROM manifests m
  -- One repository, so that the index has them in their order.
  WHERE m.repo_id = (SELECT id FROM repositories WHERE name = ?1)
    AND m.subject = ?2
    AND m.state = 1  -- live
    AND m.gen < ?4
    AND (?3 = '[]' OR m.artifact_type IN (SELECT value FROM json_each(?3)))
  ORDER BY m.gen DESC  -- not ids: a database that is made again has others
  LIMIT ?5
) page
ORDER BY page.gen DESC
