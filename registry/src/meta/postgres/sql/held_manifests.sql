-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- In a statement after the lock: a push that was quicker is seen. Every row holds until it is deleted.
SELECT m.id
FROM manifests m
WHERE m.id = ANY ($1)
  AND (EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id)
       OR EXISTS (SELECT FROM manifest_children c WHERE c.repo_id = m.repo_id AND c.child = m.digest)
       OR EXISTS (SELECT FROM manifests s WHERE s.repo_id = m.repo_id AND s.digest = m.subject)  -- it is a referrer
       OR EXISTS (SELECT FROM intents i WHERE i.manifest_id = m.id)
       OR EXISTS (SELECT FROM promotion_candidates c WHERE c.repo_id = m.repo_id AND c.digest = m.digest))
