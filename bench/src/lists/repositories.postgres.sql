-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Empty ones: a list of them reads nothing else.
INSERT INTO repositories (name)
SELECT $1 || lpad(n::text, 7, '0')
FROM generate_series(0, $2 - 1) n
