-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO usage_reports (remote, reported_at, digests, names)
SELECT ?1, now, ?2, ?3 FROM clock WHERE true
ON CONFLICT (remote) DO UPDATE
SET reported_at = excluded.reported_at, digests = excluded.digests, names = excluded.names
