-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE gc_queue
SET due = (SELECT now FROM clock) + 3600000000
WHERE id = (
  SELECT id
  FROM gc_queue
  WHERE kind = ?1
    AND due <= (SELECT now FROM clock)
  ORDER BY due
  LIMIT 1
)
