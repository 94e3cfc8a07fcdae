-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Candidates among links. Whoever holds one (a push that pins it) goes first.
SELECT l.id,
       r.name AS repository,
       l.digest,
       l.gen AS generation,
       l.blob_id,
       extract(epoch FROM greatest(l.touched, m.walked_at) + make_interval(secs => $2) - statement_timestamp())::float8
         AS wait
FROM repo_blobs l
JOIN repositories r ON r.id = l.repo_id
CROSS JOIN meta m
WHERE l.id = ANY ($1)
FOR UPDATE OF l SKIP LOCKED
