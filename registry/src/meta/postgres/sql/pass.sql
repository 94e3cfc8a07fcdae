-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT count(*) FILTER (WHERE done) AS done,
       count(*) AS total,
       coalesce(sum(findings), 0)::bigint AS findings,
       coalesce(extract(epoch FROM clock_timestamp() - min(planned)), 0)::float8 AS age,
       coalesce(max(until) > clock_timestamp() - interval '60 seconds', false) AS alive
FROM shards
WHERE epoch = 0
  AND job = $1
