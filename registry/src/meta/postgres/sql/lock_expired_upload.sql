-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT lock_token  -- of a request that died, if any
FROM uploads
WHERE id = $1
  AND expires_at < statement_timestamp()
  AND (lock_until IS NULL OR lock_until < statement_timestamp())
FOR UPDATE SKIP LOCKED
