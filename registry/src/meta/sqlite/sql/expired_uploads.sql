-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id
FROM uploads
WHERE expires_at < (SELECT now FROM clock)
  AND (lock_until IS NULL OR lock_until < (SELECT now FROM clock))  -- no request holds it
  AND id > ?1
ORDER BY id
LIMIT ?2
