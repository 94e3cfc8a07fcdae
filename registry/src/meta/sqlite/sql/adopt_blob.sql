-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO blobs (digest, size, gen, form, tail, freed)
SELECT ?1, ?2, ?3, ?4, ?5, now
FROM clock
WHERE true
ON CONFLICT (digest) DO NOTHING
