-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock.now + ?3, ?2, wanted.value
FROM json_each(?1) wanted
CROSS JOIN clock
