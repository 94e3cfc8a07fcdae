-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock_timestamp() + make_interval(secs => again.wait), $1::text::"char", again.ref
FROM unnest($2::bigint[], $3::float8[]) AS again (ref, wait)
