-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT greatest(extract(epoch FROM due - clock_timestamp()), 0)::float8
FROM promotion_candidates
WHERE policy = ANY ($1)
  AND request = ''
ORDER BY due, id
LIMIT 1
