-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT name
FROM tags
WHERE repo_id = $1
  AND name = ANY ($2)
ORDER BY name  -- the lock order
FOR UPDATE
