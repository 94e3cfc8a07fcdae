-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What a live tag names. In a statement after its lock.
SELECT m.digest
FROM tags t
JOIN manifests m ON m.id = t.manifest_id
WHERE t.repo_id = $1
  AND t.name = $2
  AND t.trashed_until IS NULL
