-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO manifests (repo_id, digest, state, pending_until, touched, pushed_at,
  media_type, artifact_type, subject, annotations, size, body)
SELECT ?1, ?2, 0, now + ?3, now, now, ?4, ?5, ?6, ?7, ?8, ?9
FROM clock
WHERE true
ON CONFLICT (repo_id, digest) WHERE state < 2 DO UPDATE  -- a trashed one goes its way
SET touched = excluded.touched,
  pending_until = CASE WHEN manifests.state = 0 THEN excluded.pending_until END
RETURNING id, state
