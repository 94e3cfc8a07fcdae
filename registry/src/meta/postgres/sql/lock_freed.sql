-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Candidates among blobs. Whoever holds one (a commit, a mount) goes first.
SELECT b.id,
       b.digest,
       b.size,
       b.gen AS generation,
       b.form,
       b.tail,
       greatest(
         extract(epoch FROM greatest(b.freed, m.walked_at) + make_interval(secs => $2) - statement_timestamp())::float8,
         -- An upload of an earlier incarnation that became this blob: of it everything counts as in use.
         CASE WHEN EXISTS (SELECT FROM uploads u WHERE u.gen = b.gen) THEN $3::float8 END
       ) AS wait
FROM blobs b
CROSS JOIN meta m
WHERE b.id = ANY ($1)
FOR UPDATE OF b SKIP LOCKED
