-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET lock_token = ?4,
  lock_until = (SELECT now FROM clock) + ?5,
  lease = lease + 1  -- names what this request stages
WHERE id = ?1
  AND repo_id = (SELECT id FROM repositories WHERE name = ?2)
  AND principal = ?3
  AND expires_at > (SELECT now FROM clock)
  AND (lock_until IS NULL
    OR lock_until < (SELECT now FROM clock)
    OR lock_token = ?4)  -- the answer to a first attempt was lost
RETURNING id, repo_id, gen, lease, multipart_id, part_size, parts, spec, off, alg, hash, tails,
  -- Of this incarnation; else what was written under its generation may be more than the row says.
  NOT EXISTS (SELECT 1 FROM meta WHERE meta.epoch = uploads.epoch AND meta.fence = ?6) AS restored,
  plan_digest, plan_form, plan_tail, plan_size
