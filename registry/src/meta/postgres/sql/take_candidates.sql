-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Statement time, which an index can be searched by.
DELETE FROM gc_queue
WHERE id = ANY (ARRAY(
  SELECT id
  FROM gc_queue
  WHERE kind = $1::text::"char"
    AND due <= statement_timestamp()
  ORDER BY due
  LIMIT $2
  FOR UPDATE SKIP LOCKED  -- another worker has them
))
RETURNING ref
