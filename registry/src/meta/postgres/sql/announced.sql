-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT DISTINCT key
FROM intents i
CROSS JOIN unnest(i.keys) AS key
WHERE i.epoch = $1
  AND i.keys && $2
  AND key = ANY ($2)
