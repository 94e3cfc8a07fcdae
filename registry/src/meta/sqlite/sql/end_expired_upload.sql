-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM uploads
WHERE id = ?1
  AND expires_at < (SELECT now FROM clock)
  AND (lock_until IS NULL OR lock_until < (SELECT now FROM clock))
RETURNING repo_id, (SELECT name FROM repositories r WHERE r.id = uploads.repo_id) AS repository,
  gen, first_lease, lease, tails, multipart_id, part_size, plan_digest, plan_form, plan_tail, plan_size
