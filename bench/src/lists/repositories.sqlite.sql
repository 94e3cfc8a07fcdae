-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Empty ones: a list of them reads nothing else.
INSERT INTO repositories (name)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2 - 1)
SELECT ?1 || printf('%07d', n)
FROM numbers
