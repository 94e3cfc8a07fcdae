-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH RECURSIVE below (id) AS (
  SELECT ?1
  UNION
  SELECT k.id
  FROM below
  JOIN manifest_children c ON c.parent_id = below.id
  JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child AND k.state = 1
)
SELECT NOT EXISTS (SELECT 1 FROM below CROSS JOIN pulls p ON p.manifest_id = below.id WHERE p.day > ?2)
  AND NOT EXISTS (SELECT 1 FROM promotion_candidates c WHERE c.repo_id = m.repo_id AND c.digest = m.digest)
  AND NOT EXISTS (SELECT 1 FROM promotions o
                  WHERE o.source_repo = ?4 AND o.digest = m.digest AND o.outcome = 'Promoted' AND o.at > ?5 * 1000)
  AND NOT EXISTS (SELECT 1 FROM manifests s
                  WHERE s.repo_id = m.repo_id AND s.digest = ?3 AND s.state < 2) AS still
FROM manifests m
WHERE m.id = ?1
