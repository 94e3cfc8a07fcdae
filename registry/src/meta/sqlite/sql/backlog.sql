-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Each count by an index.
SELECT 'i' AS what, count(*) AS pending, (SELECT now FROM clock) - min(deadline) AS oldest
FROM intents
WHERE deadline < (SELECT now FROM clock)
UNION ALL
SELECT 'u', count(*), (SELECT now FROM clock) - min(expires_at)
FROM uploads
WHERE expires_at < (SELECT now FROM clock)
  AND (lock_until IS NULL OR lock_until < (SELECT now FROM clock))
UNION ALL
SELECT 't', count(*), (SELECT now FROM clock) - min(trashed_until)
FROM tags
WHERE trashed_until IS NOT NULL  -- as the index says
  AND trashed_until <= (SELECT now FROM clock)
UNION ALL
SELECT kind, count(*), (SELECT now FROM clock) - min(due)
FROM gc_queue
WHERE kind IN ('x', 'm', 'l', 'b')
  AND due <= (SELECT now FROM clock)
GROUP BY kind
UNION ALL
SELECT 'o', count(*), (SELECT now FROM clock) - min(due)
FROM outbox
WHERE due <= (SELECT now FROM clock)
UNION ALL
SELECT '+', count(*), NULL
FROM outbox
WHERE due <= (SELECT now FROM clock)
  AND substr(steps, 1, 3) = '["+'
