-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Candidates among blobs. Whoever holds one (a commit, a mount) goes first.
SELECT b.id,
       b.digest,
       b.size,
       b.gen AS generation,
       b.form,
       b.tail,
       extract(epoch FROM greatest(b.freed, m.walked_at) + make_interval(secs => $2) - statement_timestamp())::float8
         AS wait
FROM blobs b
CROSS JOIN meta m
WHERE b.id = ANY ($1)
FOR UPDATE OF b SKIP LOCKED
