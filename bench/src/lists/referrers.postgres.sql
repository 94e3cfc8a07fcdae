-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Copies of the one referrer that was pushed, with digests that nobody has.
INSERT INTO manifests (repo_id, digest, state, gen, touched, pushed_at, media_type, artifact_type, subject,
  annotations, size, body)
SELECT m.repo_id, substring(m.digest FOR 1) || sha256(n::text::bytea), m.state, gen_random_uuid(), m.touched,
  m.pushed_at, m.media_type, m.artifact_type, m.subject, m.annotations, m.size, m.body
FROM repositories r
JOIN manifests m ON m.repo_id = r.id AND m.subject IS NOT NULL
CROSS JOIN generate_series(1, $2 - 1) n
WHERE r.name = $1
