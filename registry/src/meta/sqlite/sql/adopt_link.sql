-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
SELECT ?1, b.digest, b.id, ?3, now
FROM blobs b, clock
WHERE b.digest = ?2
ON CONFLICT (repo_id, digest) DO NOTHING
