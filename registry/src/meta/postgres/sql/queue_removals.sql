-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO outbox (due, steps, lane, then_kind, then_ref)
SELECT clock_timestamp() + make_interval(secs => $1),
       ARRAY(SELECT jsonb_array_elements_text(queued.steps)),
       queued.lane,
       queued.then_kind::"char",
       queued.then_ref
FROM ROWS FROM (
  jsonb_to_recordset($2) AS (steps jsonb, lane text, then_kind text, then_ref bigint)
) WITH ORDINALITY AS queued (steps, lane, then_kind, then_ref, place)
ORDER BY place  -- ids in the order they were decided in
RETURNING id
