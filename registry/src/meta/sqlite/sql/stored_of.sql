-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.gen, b.form, b.tail
FROM json_each(?1) wanted
CROSS JOIN blobs b ON b.gen = unhex(wanted.value)
WHERE b.form <> 0
