-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE promotion_candidates
SET due = (SELECT now FROM clock)
WHERE repo_id = (SELECT id FROM repositories WHERE name = ?1)
  AND digest = ?2
  AND request = ''  -- of what was asked for it is the end of its time
