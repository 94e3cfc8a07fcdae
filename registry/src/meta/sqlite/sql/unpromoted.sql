-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT t.name, m.digest
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = ?1
  AND t.name > ?5
  AND t.trashed_until IS NULL
  AND NOT EXISTS (
    SELECT 1
    FROM promotions p
    WHERE p.source_repo = r.name
      AND p.digest = m.digest
      AND p.source_tag = t.name
      AND p.policy = ?2
      AND (p.gen IS NOT NULL AND p.target_repo = ?4 OR json_extract(p.evidence, '$.policy.hash') = ?3)
  )
ORDER BY t.name
LIMIT ?6
