-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT key.key
FROM json_each(?1) key
WHERE EXISTS (SELECT 1 FROM runs r WHERE r.gen = unhex(key.value))
LIMIT 1
