-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO outbox (due, steps, lane, then_kind, then_ref)
SELECT now + ?1, ?2, ?3, ?4, ?5
FROM clock
RETURNING id
