-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO promotion_candidates (policy, repo_id, tag, request, digest, hash, due)
SELECT $1, r.id, $3, $6, $4, $5, clock_timestamp() + make_interval(secs => $7)
FROM repositories r
WHERE r.name = $2
ON CONFLICT (repo_id, tag, policy, request) DO UPDATE
SET digest = EXCLUDED.digest, hash = EXCLUDED.hash, due = EXCLUDED.due
