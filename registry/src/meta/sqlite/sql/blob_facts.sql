-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.id, b.digest, b.gen, b.form, b.tail, b.size
FROM json_each(?1) wanted
CROSS JOIN blobs b ON b.digest = unhex(wanted.value)
