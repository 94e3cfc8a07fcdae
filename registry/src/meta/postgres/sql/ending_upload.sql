-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- An upload that ends, whose row is locked: what it may have left, and what of that became live behind its back.
SELECT r.name,
       u.gen AS generation,
       u.lease,
       u.lock_token IS NOT NULL AS held,
       u.multipart_id,
       u.tails || u.spent AS leases,
       u.plan_digest,
       u.plan_form,
       u.plan_tail,
       u.plan_size,
       b.form AS live_form,
       b.tail AS live_tail,
       EXISTS (
         SELECT FROM repo_blobs l
         WHERE l.repo_id = u.repo_id AND l.digest = u.plan_digest AND l.gen = u.gen
       ) AS linked
FROM uploads u
JOIN repositories r ON r.id = u.repo_id
LEFT JOIN blobs b ON b.gen = u.gen AND b.form <> 0
WHERE u.id = $1
