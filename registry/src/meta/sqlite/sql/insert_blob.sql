-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO blobs (digest, size, gen, form, tail, freed)
SELECT ?1, ?2, ?3, ?4, ?5, now
FROM clock
WHERE true
ON CONFLICT (digest) DO UPDATE
SET size = excluded.size, gen = excluded.gen, form = excluded.form, tail = excluded.tail, freed = excluded.freed
WHERE blobs.form = 0  -- absent: ours heals it. Else what is stored stays
