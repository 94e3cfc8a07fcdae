-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE promotion_candidates
SET due = (SELECT now FROM clock) + ?3
WHERE id = ?1
  AND digest = ?2
  AND due > (SELECT now FROM clock)  -- else it was hastened
