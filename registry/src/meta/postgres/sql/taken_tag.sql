-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- One of these tags that names another digest, or did before it was deleted.
SELECT t.name
FROM tags t
JOIN manifests m ON m.id = t.manifest_id
WHERE t.repo_id = $1
  AND t.name = ANY($2)
  AND m.digest <> $3
ORDER BY t.name
LIMIT 1
