-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- In a statement after the lock: what came meanwhile and keeps is seen.
SELECT t.name
FROM unnest($2::text[], $3::int[], $4::bytea[]) AS w (name, pulled, subject)
JOIN tags t ON t.repo_id = $1 AND t.name = w.name
JOIN manifests m ON m.id = t.manifest_id
WHERE NOT EXISTS (
    WITH RECURSIVE below (id) AS (
      SELECT m.id
      UNION
      SELECT k.id
      FROM below b
      JOIN manifest_children c ON c.parent_id = b.id
      JOIN manifests k ON k.repo_id = c.repo_id AND k.digest = c.child AND k.state = 1
    )
    SELECT FROM below b
    JOIN pulls p ON p.manifest_id = b.id
    WHERE p.day - date '1970-01-01' > coalesce(w.pulled, -1)
  )
  AND NOT EXISTS (SELECT FROM promotion_candidates c WHERE c.repo_id = t.repo_id AND c.digest = m.digest)
  AND NOT EXISTS (SELECT FROM promotions o
                  WHERE o.source_repo = $5 AND o.digest = m.digest AND o.outcome = 'Promoted'
                    AND o.at > timestamptz 'epoch' + $6 * interval '1 millisecond')
  AND NOT EXISTS (SELECT FROM manifests s
                  WHERE s.repo_id = t.repo_id AND s.digest = w.subject AND s.state < 2)
