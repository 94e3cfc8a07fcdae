-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As blob_facts.
SELECT l.id, l.digest, l.gen AS generation
FROM unnest((SELECT $2::bytea[])) AS wanted (digest)
CROSS JOIN LATERAL (SELECT * FROM repo_blobs WHERE repo_id = $1 AND digest = wanted.digest LIMIT 1) l
