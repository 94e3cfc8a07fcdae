-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO mirror_seen AS s (repository, tag, digest, seen_at)
VALUES ($1, $2, $3, clock_timestamp())
ON CONFLICT (repository, tag) DO UPDATE
SET digest = EXCLUDED.digest,
    -- Another digest begins anew.
    seen_at = CASE WHEN s.digest = EXCLUDED.digest THEN s.seen_at ELSE EXCLUDED.seen_at END
RETURNING extract(epoch FROM clock_timestamp() - seen_at)::float8
