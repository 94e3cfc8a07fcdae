-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE outbox
SET due = clock_timestamp() + make_interval(secs => $2),
    tries = tries + 1
WHERE id = ANY ($1)
RETURNING id, steps, lane, tries
