-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Links without a record: nobody sees them, and manifests can refer to them.
INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
SELECT $1, b.digest, b.id, NULL, clock_timestamp()
FROM blobs b
WHERE b.digest = ANY ($2)
ORDER BY b.digest  -- the lock order
ON CONFLICT (repo_id, digest) DO NOTHING
