-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE blobs b
SET size = found.size,
    gen = found.gen,
    form = found.form,
    tail = found.tail
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::smallint[], $5::int[]) AS found (id, size, gen, form, tail)
WHERE b.id = found.id
