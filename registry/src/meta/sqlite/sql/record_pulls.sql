-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A list of [repository, digest].
INSERT INTO pulls (manifest_id, day)
SELECT DISTINCT m.id, clock.now / 86400000000
FROM json_each(?1) AS told, clock
JOIN repositories r ON r.name = told.value ->> 0
JOIN manifests m ON m.repo_id = r.id AND m.digest = unhex(told.value ->> 1)
  AND m.state < 2  -- as the index on live manifests says
  AND m.state = 1
WHERE true
ON CONFLICT (manifest_id) DO UPDATE SET day = excluded.day
WHERE pulls.day < excluded.day  -- once a day and manifest, whoever pulls it
