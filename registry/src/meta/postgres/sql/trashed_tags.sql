-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT r.name AS repository,
       t.repo_id,
       t.name,
       t.epoch,
       t.seq,
       t.gen AS generation,
       (extract(epoch FROM t.trashed_until) * 1000000)::bigint AS until
FROM tags t
JOIN repositories r ON r.id = t.repo_id
WHERE t.trashed_until <= statement_timestamp()
  AND (t.trashed_until, t.repo_id, t.name) > (timestamptz 'epoch' + $1 * interval '1 microsecond', $2, $3)
ORDER BY t.trashed_until, t.repo_id, t.name
LIMIT $4
