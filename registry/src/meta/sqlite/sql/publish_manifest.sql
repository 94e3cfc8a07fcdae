-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE manifests
SET state = 1,
  gen = ?2,
  pending_until = NULL,
  touched = (SELECT now FROM clock),
  pushed_at = (SELECT now FROM clock)
WHERE id = ?1
  AND state = 0  -- pending
