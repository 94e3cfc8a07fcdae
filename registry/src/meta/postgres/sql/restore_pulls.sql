-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO pulls (manifest_id, day)
SELECT m.id, max(DATE '1970-01-01' + told.day)
FROM unnest((SELECT $1::text[]), (SELECT $2::bytea[]), (SELECT $3::int[])) AS told (repository, digest, day)
JOIN repositories r ON r.name = told.repository
JOIN manifests m ON m.repo_id = r.id AND m.digest = told.digest
  AND m.state < 2  -- as the index on live manifests says
  AND m.state = 1
GROUP BY m.id
ORDER BY m.id  -- so processes do not wait for each other crosswise
ON CONFLICT (manifest_id) DO UPDATE SET day = EXCLUDED.day
WHERE pulls.day < EXCLUDED.day
