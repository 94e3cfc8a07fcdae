-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT name
FROM tags
WHERE manifest_id = $1
  AND trashed_until IS NULL
ORDER BY name  -- the lock order
FOR UPDATE
