-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Pushes that pinned a tag of it go on: their versions are higher.
WITH trashed AS (
  UPDATE manifests
  SET state = 2,
      trashed_until = clock_timestamp() + make_interval(secs => $2)
  WHERE id = ANY ($1)
    AND state = 1
  RETURNING id
)
INSERT INTO gc_queue (due, kind, ref)
SELECT clock_timestamp() + make_interval(secs => $2), 'x', id
FROM trashed
