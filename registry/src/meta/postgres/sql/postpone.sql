-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE gc_queue
SET due = clock_timestamp() + interval '1 hour'
WHERE id = (
  SELECT id
  FROM gc_queue
  WHERE kind = $1::text::"char"
    AND due <= statement_timestamp()
  ORDER BY due
  LIMIT 1
  FOR UPDATE SKIP LOCKED
)
