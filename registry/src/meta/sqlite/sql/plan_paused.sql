-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET lock_token = ?3,
  lock_until = (SELECT now FROM clock) + ?4,
  plan_digest = ?5, plan_form = ?6, plan_tail = ?7, plan_size = ?8,
  expires_at = (SELECT now FROM clock) + expiry
WHERE id = ?1
  AND lease = ?2  -- every request that takes it has one of its own
  AND lock_token IS NULL
  AND expires_at > (SELECT now FROM clock)
  -- Else what was written under its generation may be more than the row says.
  AND EXISTS (SELECT 1 FROM meta WHERE meta.epoch = uploads.epoch AND meta.fence = ?9)
