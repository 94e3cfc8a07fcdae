-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Copies of the one referrer that was pushed, with digests that nobody has.
INSERT INTO manifests (repo_id, digest, state, gen, touched, pushed_at, media_type, artifact_type, subject,
  annotations, size, body)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2 - 1)
SELECT m.repo_id, CAST(substr(m.digest, 1, 1) || randomblob(32) AS BLOB), m.state, randomblob(16), m.touched,
  m.pushed_at, m.media_type, m.artifact_type, m.subject, m.annotations, m.size, m.body
FROM repositories r
JOIN manifests m ON m.repo_id = r.id AND m.subject IS NOT NULL
CROSS JOIN numbers
WHERE r.name = ?1
