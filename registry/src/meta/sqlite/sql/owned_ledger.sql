-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the ledger records (generation) a row owns.
SELECT wanted.key
FROM json_each(?1) wanted
CROSS JOIN promotions p ON p.gen = unhex(wanted.value)
LIMIT 1
