-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT DISTINCT step
FROM outbox o
CROSS JOIN unnest(o.steps) AS step
WHERE o.steps && $1
  AND step = ANY ($1)
