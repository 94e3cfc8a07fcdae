-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO mirror_seen (repository, tag, digest, seen_at)
SELECT ?1, ?2, ?3, now
FROM clock
WHERE true
ON CONFLICT (repository, tag) DO UPDATE
SET seen_at = CASE WHEN digest = excluded.digest THEN seen_at ELSE excluded.seen_at END,  -- another begins anew
  digest = excluded.digest
