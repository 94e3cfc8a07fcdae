-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Name by name, whatever statistics say: a list of names is a join, not a filter of all that there are.
SELECT b.id, b.digest, b.gen AS generation, b.form, b.tail, b.size
FROM unnest((SELECT $1::bytea[])) AS wanted (digest)
CROSS JOIN LATERAL (SELECT * FROM blobs WHERE digest = wanted.digest LIMIT 1) b
