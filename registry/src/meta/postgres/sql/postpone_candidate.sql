-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE promotion_candidates
SET due = clock_timestamp() + make_interval(secs => $3)
WHERE id = $1
  AND digest = $2
  AND due > clock_timestamp()  -- else it was hastened
