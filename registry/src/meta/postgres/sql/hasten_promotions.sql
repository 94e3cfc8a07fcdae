-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE promotion_candidates c
SET due = clock_timestamp()
FROM repositories r
WHERE r.name = $1
  AND c.repo_id = r.id
  AND c.digest = $2
  AND c.request = ''  -- of what was asked for it is the end of its time
