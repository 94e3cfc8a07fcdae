-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id,
       r.name AS repository,
       m.digest,
       m.subject,
       m.gen AS generation,
       extract(epoch FROM m.trashed_until - statement_timestamp())::float8 AS wait
FROM manifests m
JOIN repositories r ON r.id = m.repo_id
WHERE m.id = ANY ($1)
  AND m.state = 2
FOR UPDATE OF m SKIP LOCKED
