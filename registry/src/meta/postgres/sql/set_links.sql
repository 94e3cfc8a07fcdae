-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE repo_blobs l
SET gen = found.gen,
    touched = clock_timestamp()
FROM unnest($1::bigint[], $2::uuid[]) AS found (id, gen)
WHERE l.id = found.id
