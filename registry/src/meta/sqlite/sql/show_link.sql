-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO repo_blobs (repo_id, digest, blob_id, gen, touched)
SELECT ?1, ?2, ?3, ?4, now
FROM clock
WHERE true
ON CONFLICT (repo_id, digest) DO UPDATE
SET touched = excluded.touched,
  gen = coalesce(repo_blobs.gen, excluded.gen)  -- a visible link keeps its record
RETURNING id, gen
