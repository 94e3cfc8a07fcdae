-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO blobs (digest, size, gen, form, tail)
SELECT digest, size, gen, form, tail
FROM unnest($1::bytea[], $2::bigint[], $3::uuid[], $4::smallint[], $5::int[]) AS found (digest, size, gen, form, tail)
ORDER BY digest  -- two that insert the same meet in one order
ON CONFLICT (digest) DO NOTHING
RETURNING digest
