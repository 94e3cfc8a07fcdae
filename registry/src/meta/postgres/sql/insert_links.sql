-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
SELECT $1, found.digest, b.id, found.gen, clock_timestamp()
FROM unnest($2::bytea[], $3::uuid[]) AS found (digest, gen)
JOIN blobs b ON b.digest = found.digest
ORDER BY found.digest  -- the lock order
ON CONFLICT (repo_id, digest) DO NOTHING
RETURNING digest
