-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO uploads (id, repo_id, principal, gen, epoch, alg, expiry, expires_at)
SELECT ?1, ?2, ?3, ?4, coalesce((SELECT epoch FROM meta), 0), ?5, ?6, now + ?6
FROM clock
WHERE ?7 > (SELECT count(*) FROM uploads u WHERE u.principal = ?3 AND u.expires_at > clock.now)
