-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Candidates that lost a tag, and are in the trash: whoever looked at them there found the tag, and forgot them.
INSERT INTO gc_queue (due, kind, ref)
SELECT greatest(trashed_until, clock_timestamp()), 'x', id
FROM manifests
WHERE id = ANY ($1)
  AND state = 2
