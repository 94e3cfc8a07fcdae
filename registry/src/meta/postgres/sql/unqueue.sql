-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE outbox
SET steps = ARRAY (
  SELECT step
  FROM unnest(steps) WITH ORDINALITY AS queued (step, place)
  WHERE step <> $1
    AND NOT starts_with(step, $2)
  ORDER BY place
)
WHERE steps @> ARRAY[$1]
