-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.digest, m.media_type, m.gen AS generation, m.body, NULL AS tombstone
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = ?1
  AND m.digest = ?2
  AND m.state = 2  -- trashed
  AND NOT EXISTS (
    SELECT 1 FROM manifests other
    WHERE other.repo_id = m.repo_id
      AND other.digest = m.digest
      AND other.state = 1  -- live
  )
ORDER BY m.id DESC
LIMIT 1
