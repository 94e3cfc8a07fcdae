-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET lock_token = NULL,
    lock_until = NULL,
    -- It may have staged something that does not count.
    spent = CASE WHEN lease = ANY (tails) THEN spent ELSE spent || lease END
WHERE id = $1
  AND lock_token = $2
