-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE outbox
SET due = (SELECT now FROM clock) + ?2, tries = tries + 1
WHERE id IN (SELECT value FROM json_each(?1))
RETURNING id, steps, lane, tries
