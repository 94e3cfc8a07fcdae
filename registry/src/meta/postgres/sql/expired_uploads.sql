-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id
FROM uploads
WHERE expires_at < statement_timestamp()
  AND (lock_until IS NULL OR lock_until < statement_timestamp())  -- no request holds it
  AND id > $1
ORDER BY id
LIMIT $2
