-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Candidates that lost a tag, and are in the trash: whoever looked at them there found the tag, and forgot them.
INSERT INTO gc_queue (due, kind, ref)
SELECT max(m.trashed_until, clock.now), 'x', m.id
FROM json_each(?1) wanted
CROSS JOIN manifests m ON m.id = wanted.value
CROSS JOIN clock
WHERE m.state = 2
