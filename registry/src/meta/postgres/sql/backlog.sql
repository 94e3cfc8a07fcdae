-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Each count by an index.
SELECT 'i' AS what, count(*) AS pending, extract(epoch FROM statement_timestamp() - min(deadline))::float8 AS oldest
FROM intents
WHERE deadline < statement_timestamp()
UNION ALL
SELECT 'u', count(*), extract(epoch FROM statement_timestamp() - min(expires_at))::float8
FROM uploads
WHERE expires_at < statement_timestamp()
  AND (lock_until IS NULL OR lock_until < statement_timestamp())
UNION ALL
SELECT 't', count(*), extract(epoch FROM statement_timestamp() - min(trashed_until))::float8
FROM tags
WHERE trashed_until <= statement_timestamp()
UNION ALL
SELECT kind::text, count(*), extract(epoch FROM statement_timestamp() - min(due))::float8
FROM gc_queue
WHERE kind IN ('x', 'm', 'l', 'b')
  AND due <= statement_timestamp()
GROUP BY kind
UNION ALL
SELECT 'o', count(*), extract(epoch FROM statement_timestamp() - min(due))::float8
FROM outbox
WHERE due <= statement_timestamp()
UNION ALL
SELECT '+', count(*), NULL
FROM outbox
WHERE due <= statement_timestamp()
  AND left(steps[1], 1) = '+'
