-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What deleted indexes that list the child have not yet got into the bucket. Their markers must be there
-- before the child's, and the tombstones of their tags before them.
SELECT o.steps
FROM manifest_children c
JOIN manifests p ON p.id = c.parent_id
JOIN outbox o ON o.then_ref = p.id
WHERE c.repo_id = ?1
  AND c.child = ?2
  AND p.state >= 2
  AND coalesce(o.then_kind, 'm') = 'm'  -- others name no manifest
ORDER BY o.id
