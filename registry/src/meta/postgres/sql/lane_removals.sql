-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The first rows of each lane, whose very first one is ours: nobody else takes one of them.
SELECT o.id, o.lane, o.due <= statement_timestamp() AS is_due
FROM unnest($1::text[]) AS ours (lane)
CROSS JOIN LATERAL (
  SELECT id, lane, due
  FROM outbox
  WHERE lane = ours.lane
  ORDER BY id
  LIMIT $2
) o
ORDER BY o.lane, o.id
