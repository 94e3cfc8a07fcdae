-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE promotion_candidates c
SET due = clock_timestamp() + make_interval(secs => $2),
    tries = c.tries + 1
FROM repositories r
WHERE c.id = (
    SELECT id
    FROM promotion_candidates
    WHERE policy = ANY ($1)
      AND request = ''
      AND due <= clock_timestamp()
    ORDER BY due, id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
  )
  AND r.id = c.repo_id
RETURNING c.id,
          c.policy,
          r.name AS repository,
          c.tag,
          c.digest,
          c.hash,
          extract(epoch FROM clock_timestamp() - c.since)::float8 AS waiting,
          c.tries
