-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO outbox (due, steps, lane, then_kind, then_ref)
VALUES (clock_timestamp() + make_interval(secs => $1), $2, $3, $4::text::"char", $5)
RETURNING id
