-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT coalesce(sum(done), 0),
       count(*),
       coalesce(sum(findings), 0),
       coalesce((SELECT now FROM clock) - min(planned), 0),
       coalesce(max(until) > (SELECT now FROM clock) - 60000000, 0)
FROM shards
WHERE epoch = 0
  AND job = ?1
