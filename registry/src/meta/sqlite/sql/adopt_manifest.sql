-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO manifests (repo_id, digest, state, gen, trashed_until, touched, pushed_at,
  media_type, artifact_type, subject, annotations, size, body)
SELECT ?1, ?2, iif(?4 IS NULL, 1, 2), ?3, now + ?4, now, ?5, ?6, ?7, ?8, ?9, ?10, ?11
FROM clock
WHERE true
ON CONFLICT DO NOTHING  -- another lives, or it is known
RETURNING id
