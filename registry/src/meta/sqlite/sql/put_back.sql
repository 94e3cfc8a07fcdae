-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock.now + (wanted.value ->> 1), ?1, wanted.value ->> 0
FROM json_each(?2) wanted
CROSS JOIN clock
