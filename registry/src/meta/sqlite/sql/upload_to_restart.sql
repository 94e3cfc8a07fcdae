-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT u.repo_id, r.name AS repository, u.gen, u.first_lease, u.lease, u.tails, u.multipart_id, u.part_size,
  u.plan_digest, u.plan_form, u.plan_tail, u.plan_size
FROM uploads u
JOIN repositories r ON r.id = u.repo_id
WHERE u.id = ?1
  AND u.lock_token = ?2
  AND u.plan_digest IS NULL  -- a closing upload can only be closed
