-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT name
FROM repositories
WHERE name > ?2
  AND substr(name, 1, length(?1)) = ?1
ORDER BY name
LIMIT ?3
