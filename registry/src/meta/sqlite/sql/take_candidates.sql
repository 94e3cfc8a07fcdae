-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM gc_queue
WHERE id IN (
  SELECT id
  FROM gc_queue
  WHERE kind = ?1
    AND due <= (SELECT now FROM clock)
  ORDER BY due
  LIMIT ?2
)
RETURNING ref
