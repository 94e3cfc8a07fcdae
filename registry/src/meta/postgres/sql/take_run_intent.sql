-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM intents
WHERE id = $1
  AND epoch = $2
  AND gen = $3  -- in another incarnation somebody else's may have this number
  AND kind = 'r'
RETURNING id
