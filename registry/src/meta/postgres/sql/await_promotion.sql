-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO promotion_candidates AS c (policy, repo_id, tag, digest, hash, due)
SELECT $1, r.id, $3, $4, $5, clock_timestamp()
FROM repositories r
WHERE r.name = $2
ON CONFLICT (repo_id, tag, policy, request) DO UPDATE
SET digest = EXCLUDED.digest,
    hash = EXCLUDED.hash,
    since = CASE WHEN c.digest = EXCLUDED.digest THEN c.since ELSE EXCLUDED.since END,
    due = EXCLUDED.due,
    tries = 0
WHERE c.digest <> EXCLUDED.digest OR c.hash <> EXCLUDED.hash  -- else it waits already
