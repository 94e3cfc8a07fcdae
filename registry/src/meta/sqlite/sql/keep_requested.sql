-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO promotion_candidates (policy, repo_id, tag, request, digest, hash, since, due)
SELECT ?1, r.id, ?3, ?6, ?4, ?5, now, now + ?7
FROM clock, repositories r
WHERE r.name = ?2
ON CONFLICT (repo_id, tag, policy, request) DO UPDATE
SET digest = excluded.digest, hash = excluded.hash, due = excluded.due
