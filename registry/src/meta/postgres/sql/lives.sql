-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As manifest_facts.
SELECT m.id, m.digest, m.state
FROM unnest((SELECT $2::bytea[])) AS wanted (digest)
CROSS JOIN LATERAL (SELECT * FROM manifests WHERE repo_id = $1 AND digest = wanted.digest OFFSET 0) m
WHERE m.state IN (1, 2)
ORDER BY m.id
