-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Out of the lock order, so without waiting: who holds one is changing or ending it.
WITH held AS (
  SELECT gen
  FROM uploads
  WHERE gen = ANY ($1)
  FOR NO KEY UPDATE SKIP LOCKED
)
SELECT u.gen, u.gen IN (SELECT gen FROM held) AS held
FROM uploads u
WHERE u.gen = ANY ($1)
