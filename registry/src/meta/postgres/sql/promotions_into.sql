-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT floor(extract(epoch FROM at) * 1000)::bigint AS milliseconds, outcome, evidence
FROM promotions
WHERE target_repo = $1
  AND digest = $2
  AND gen IS NOT NULL  -- else it did not take effect
ORDER BY epoch DESC, seq DESC
LIMIT $3
