-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Content that is not here yet: it has a row without data, unless it is stored already.
INSERT INTO blobs (digest, size, gen, form, tail, freed)
SELECT unhex(value ->> 0), value ->> 1, NULL, 0, NULL, now
FROM clock, json_each(?1)
WHERE true
ON CONFLICT (digest) DO NOTHING
