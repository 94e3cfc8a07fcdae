-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock_timestamp() + make_interval(secs => $1), $2::text::"char", ref
FROM unnest($3::bigint[]) AS ref
