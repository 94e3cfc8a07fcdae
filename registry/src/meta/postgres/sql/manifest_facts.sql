-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As blob_facts. A digest may have several rows; OFFSET 0 keeps them apart like LIMIT does.
SELECT m.id, m.digest, m.state, m.gen AS generation
FROM unnest((SELECT $2::bytea[])) AS wanted (digest)
CROSS JOIN LATERAL (SELECT * FROM manifests WHERE repo_id = $1 AND digest = wanted.digest OFFSET 0) m
