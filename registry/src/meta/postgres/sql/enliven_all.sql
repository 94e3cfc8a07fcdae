-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE manifests m
SET state = 1,
    gen = found.gen,
    pending_until = NULL,
    touched = clock_timestamp()
FROM unnest($1::bigint[], $2::uuid[]) AS found (id, gen)
WHERE m.id = found.id
  AND m.state = 0
