-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET off = ?3, parts = ?4, spec = ?5, hash = ?6, tails = ?7,
  lock_token = NULL, lock_until = NULL,
  expires_at = (SELECT now FROM clock) + expiry
WHERE id = ?1
  AND lock_token = ?2
  AND plan_digest IS NULL  -- a closing upload can only be closed
