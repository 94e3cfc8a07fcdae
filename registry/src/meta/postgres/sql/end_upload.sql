-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- No row: taken over, or reaped.
DELETE FROM uploads u
USING repositories r
WHERE u.id = $1
  AND u.lock_token = $2
  AND r.id = u.repo_id
RETURNING u.repo_id, r.name, u.gen AS generation, u.multipart_id,
  u.tails || u.spent AS leases
