-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT wanted.name,
       nextval('versions') AS seq,
       -- When, in milliseconds: at least one above the tag's last, for policies that go by time.
       greatest(
         floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
         floor(extract(epoch FROM t.pushed_at) * 1000)::bigint + 1
       ) AS milliseconds
FROM unnest($2::text[]) AS wanted (name)
LEFT JOIN tags t ON t.repo_id = $1 AND t.name = wanted.name
