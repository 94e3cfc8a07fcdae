-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Candidates among live manifests. Whoever holds one (a push of its index, or of itself) goes first.
SELECT m.id,
       r.name AS repository,
       m.digest,
       m.subject,
       m.gen AS generation,
       extract(epoch FROM greatest(m.touched, meta.walked_at) + make_interval(secs => $2) - statement_timestamp())::float8
         AS wait
FROM manifests m
JOIN repositories r ON r.id = m.repo_id
CROSS JOIN meta
WHERE m.id = ANY ($1)
  AND m.state = 1
FOR UPDATE OF m SKIP LOCKED
