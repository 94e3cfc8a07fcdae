-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET gen = ?3, epoch = coalesce((SELECT epoch FROM meta), 0), first_lease = lease, multipart_id = NULL, part_size = NULL, parts = '[]', spec = NULL, off = 0, hash = x'', tails = '[]',
  expires_at = (SELECT now FROM clock) + expiry
WHERE id = ?1
  AND lock_token = ?2
