-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Rows of the same age, in their order.
INSERT INTO outbox (due, steps, lane, then_kind, then_ref)
SELECT clock.now + ?2, wanted.value ->> 0, wanted.value ->> 1, wanted.value ->> 2, wanted.value ->> 3
FROM json_each(?1) wanted
CROSS JOIN clock
ORDER BY wanted.key
