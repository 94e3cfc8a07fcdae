-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM uploads
WHERE id = ?1
  AND lock_token = ?2
RETURNING repo_id, (SELECT name FROM repositories r WHERE r.id = uploads.repo_id) AS repository,
  gen, first_lease, lease, tails, multipart_id, part_size, plan_digest, plan_form, plan_tail, plan_size
