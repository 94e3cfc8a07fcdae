-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT kind, name, gen AS generation, outcome,
       floor(extract(epoch FROM started_at) * 1000)::bigint AS started,
       floor(extract(epoch FROM ended_at) * 1000)::bigint AS ended,
       summary::text AS summary,
       rules
FROM runs
WHERE kind = $1
  AND name = $2
ORDER BY gen DESC
LIMIT $3
