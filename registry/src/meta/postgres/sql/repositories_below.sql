-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT name
FROM repositories
WHERE name > $2
  AND starts_with(name, $1)
ORDER BY name
LIMIT $3
