-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name
FROM unnest($2::text[], $3::uuid[]) AS w (name, gen)
JOIN tags t ON t.repo_id = $1 AND t.name = w.name
WHERE t.gen = w.gen
  AND t.trashed_until IS NULL
ORDER BY t.name
FOR UPDATE OF t
