-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT (extract(epoch FROM at) * 1000000)::bigint AS microseconds, id, outcome, evidence
FROM promotions
WHERE ($1::text IS NULL OR source_repo = $1 OR target_repo = $1)
  AND ($2::text IS NULL OR policy = $2)
  AND ($3::bytea IS NULL OR digest = $3)
  AND (at, id) < (timestamptz 'epoch' + $4 * interval '1 microsecond', $5)
ORDER BY at DESC, id DESC
LIMIT $6
