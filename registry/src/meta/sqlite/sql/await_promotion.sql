-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO promotion_candidates (policy, repo_id, tag, digest, hash, since, due)
SELECT ?1, r.id, ?3, ?4, ?5, now, now
FROM clock, repositories r
WHERE r.name = ?2
ON CONFLICT (repo_id, tag, policy, request) DO UPDATE
SET since = CASE WHEN digest = excluded.digest THEN since ELSE excluded.since END,
  digest = excluded.digest, hash = excluded.hash, due = excluded.due, tries = 0
WHERE promotion_candidates.digest <> excluded.digest OR promotion_candidates.hash <> excluded.hash  -- else it waits already
