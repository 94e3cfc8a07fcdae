-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, r.name AS repository, m.digest, m.subject, m.gen,
  max(m.touched, coalesce((SELECT walked_at FROM meta), 0)) + ?2 - (SELECT now FROM clock) AS wait,
  -- Every row holds until it is deleted.
  EXISTS (SELECT 1 FROM tags t WHERE t.manifest_id = m.id)
  OR EXISTS (SELECT 1 FROM manifest_children c WHERE c.repo_id = m.repo_id AND c.child = m.digest)
  OR EXISTS (SELECT 1 FROM manifests s WHERE s.repo_id = m.repo_id AND s.digest = m.subject)  -- it is a referrer
  OR EXISTS (SELECT 1 FROM intents i WHERE i.manifest_id = m.id)
  OR EXISTS (SELECT 1 FROM promotion_candidates c WHERE c.repo_id = m.repo_id AND c.digest = m.digest) AS held
FROM json_each(?1) wanted
CROSS JOIN manifests m ON m.id = wanted.value
CROSS JOIN repositories r ON r.id = m.repo_id
WHERE m.state = 1
