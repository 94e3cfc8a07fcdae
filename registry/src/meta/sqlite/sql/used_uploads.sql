-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM uploads
WHERE gen IN (SELECT gen FROM blobs WHERE form <> 0 AND gen IN (SELECT gen FROM uploads))
  AND (lock_until IS NULL OR lock_until < (SELECT now FROM clock))  -- else its request ends it
RETURNING repo_id, (SELECT name FROM repositories r WHERE r.id = uploads.repo_id) AS repository,
  gen, first_lease, lease, tails, multipart_id, part_size, plan_digest, plan_form, plan_tail, plan_size
