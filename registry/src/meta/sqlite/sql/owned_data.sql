-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What the generations are: data of a blob, or an open upload.
SELECT b.gen, b.form, b.tail
FROM json_each(?1) wanted
CROSS JOIN blobs b ON b.gen = unhex(wanted.value)
WHERE b.form <> 0
UNION ALL
SELECT u.gen, 0, NULL
FROM json_each(?1) wanted
CROSS JOIN uploads u ON u.gen = unhex(wanted.value)
