-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT kind, stopped, total
FROM losses
WHERE epoch = ?1
  AND stopped IS NOT NULL
  AND NOT accepted
LIMIT 1
