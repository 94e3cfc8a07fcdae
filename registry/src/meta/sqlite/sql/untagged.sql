-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.digest
FROM repositories r
JOIN manifests m ON m.repo_id = r.id
CROSS JOIN clock
WHERE r.name = ?1
  AND m.id > ?2
  AND m.state = 1
  AND max(m.touched, coalesce((SELECT walked_at FROM meta), 0)) + ?3 < clock.now
  AND NOT (?4 AND m.subject IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM pulls p WHERE p.manifest_id = m.id AND p.day >= (clock.now - ?3) / 86400000000)
  -- Every row holds until it is deleted.
  AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest_id = m.id)
  AND NOT EXISTS (SELECT 1 FROM manifest_children c WHERE c.repo_id = m.repo_id AND c.child = m.digest)
  AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repo_id = m.repo_id AND s.digest = m.subject)
  AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.manifest_id = m.id)
  -- Also what waits to be promoted by its digest.
  AND NOT EXISTS (SELECT 1 FROM promotion_candidates c WHERE c.repo_id = m.repo_id AND c.digest = m.digest)
ORDER BY m.id
LIMIT ?5
