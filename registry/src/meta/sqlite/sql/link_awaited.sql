-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Links without a record: nobody sees them, and manifests can refer to them.
INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
SELECT ?1, b.digest, b.id, NULL, now
FROM clock, json_each(?2) wanted
CROSS JOIN blobs b ON b.digest = unhex(wanted.value ->> 0)
WHERE true
ON CONFLICT (repo_id, digest) DO NOTHING
