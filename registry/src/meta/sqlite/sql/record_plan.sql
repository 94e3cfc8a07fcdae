-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET off = ?3, parts = ?4, spec = ?5, hash = ?6, tails = ?7,
  plan_digest = ?8, plan_form = ?9, plan_tail = ?10, plan_size = ?11,
  expires_at = (SELECT now FROM clock) + expiry
WHERE id = ?1
  AND lock_token = ?2
  AND (plan_digest IS NULL
    OR (plan_digest, plan_form, plan_size) = (?8, ?9, ?11) AND plan_tail IS ?10)  -- the plan stands
