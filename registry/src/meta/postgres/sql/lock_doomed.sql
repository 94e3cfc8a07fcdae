-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id
FROM manifests
WHERE id = ANY ($1)
  AND state = 3
ORDER BY id  -- the lock order
FOR UPDATE
