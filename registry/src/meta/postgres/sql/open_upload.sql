-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- No row: there is no such repository, or the principal has too many open uploads.
INSERT INTO uploads (id, repo_id, principal, gen, epoch, alg, expiry, expires_at)
SELECT $1, r.id, $3, $4, coalesce((SELECT epoch FROM meta), 0), $5, make_interval(secs => $6), clock_timestamp() + make_interval(secs => $6)
FROM repositories r
WHERE r.name = $2
  AND (SELECT count(*) FROM uploads u WHERE u.principal = $3 AND u.expires_at > clock_timestamp()) < $7
RETURNING id
