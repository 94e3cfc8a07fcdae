-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO manifests (repo_id, digest, state, pending_until, media_type, artifact_type, subject, annotations, size, body)
VALUES ($1, $2, 0, clock_timestamp() + make_interval(secs => $9), $3, $4, $5, $6, $7, $8)
ON CONFLICT (repo_id, digest) WHERE state < 2 DO UPDATE
SET touched = clock_timestamp(),
    pending_until = CASE WHEN manifests.state = 0 THEN EXCLUDED.pending_until END
RETURNING id, state = 0 AS pending
