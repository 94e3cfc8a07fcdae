-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT u.gen
FROM json_each(?1) wanted
CROSS JOIN uploads u ON u.gen = unhex(wanted.value)
