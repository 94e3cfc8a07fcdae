-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO usage_reports (remote, reported_at, digests, names)
VALUES ($1, clock_timestamp(), $2, $3)
ON CONFLICT (remote) DO UPDATE
SET reported_at = EXCLUDED.reported_at, digests = EXCLUDED.digests, names = EXCLUDED.names
