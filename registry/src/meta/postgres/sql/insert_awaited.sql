-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Content that is not here yet: it has a row without data, unless it is stored already.
INSERT INTO blobs (digest, size, form)
SELECT awaited.digest, awaited.size, 0
FROM unnest($1::bytea[], $2::bigint[]) AS awaited (digest, size)
ORDER BY awaited.digest
ON CONFLICT (digest) DO NOTHING
