-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
SELECT $1, found.digest, b.id, found.gen, clock_timestamp()
FROM unnest((SELECT $2::bytea[]), (SELECT $3::uuid[])) AS found (digest, gen)
CROSS JOIN LATERAL (SELECT id FROM blobs WHERE digest = found.digest LIMIT 1) b  -- as in blob_facts
ORDER BY found.digest  -- the lock order
ON CONFLICT (repo_id, digest) DO NOTHING
RETURNING digest
