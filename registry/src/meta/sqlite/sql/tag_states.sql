-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Deleted tags too: their rows are tombstones.
SELECT t.name, m.digest, t.gen, t.trashed_until IS NOT NULL AS is_deleted
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = ?1
  AND t.name > ?2
ORDER BY t.name
LIMIT ?3
