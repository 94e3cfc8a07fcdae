-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT count(*) FILTER (WHERE done) AS done, count(*) AS total
FROM shards
WHERE epoch = ?1
  AND job = 'walk'
