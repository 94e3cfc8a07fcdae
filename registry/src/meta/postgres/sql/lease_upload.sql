-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads u
SET lock_token = $4,
    lock_until = clock_timestamp() + make_interval(secs => $5),
    lease = u.lease + 1,  -- names what this request stages: the key is recorded before it is written
    -- A request that died holding the upload may have staged something that does not count.
    spent = CASE WHEN u.lock_token IS NULL OR u.lease = ANY (u.tails) THEN u.spent ELSE u.spent || u.lease END
FROM repositories r
WHERE u.id = $1
  AND r.id = u.repo_id
  AND r.name = $2
  AND u.principal = $3
  AND u.expires_at > clock_timestamp()
  AND (u.lock_until IS NULL
       OR u.lock_until < clock_timestamp()
       OR u.lock_token = $4)  -- ours: the answer to the first attempt was lost
RETURNING u.repo_id, u.gen AS generation, u.lease, u.multipart_id, u.part_size, u.parts, u.spec, u.off, u.alg,
  u.hash, u.tails, u.tail_sizes,
  -- Of this incarnation; else what was written under its generation may be more than the row says.
  NOT EXISTS (SELECT FROM meta m WHERE m.epoch = u.epoch AND m.fence = pg_postmaster_start_time()) AS restored,
  u.plan_digest, u.plan_form, u.plan_tail, u.plan_size
