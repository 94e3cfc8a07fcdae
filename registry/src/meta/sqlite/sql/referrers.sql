-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.digest, m.media_type, m.size, m.artifact_type, m.annotations
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
WHERE r.name = ?1
  AND m.subject = ?2
  AND m.state = 1  -- live
  AND m.id < coalesce(?4, 9223372036854775807)
  AND (?3 = '[]' OR m.artifact_type IN (SELECT value FROM json_each(?3)))
ORDER BY m.id DESC
LIMIT ?5
