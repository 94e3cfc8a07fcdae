-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT o.steps
FROM manifest_children c
JOIN manifests p ON p.id = c.parent_id
JOIN outbox o ON o.then_ref = p.id
WHERE c.repo_id = $1
  AND c.child = $2
  AND p.state >= 2
  AND o.then_kind IS DISTINCT FROM 'b'  -- there the row is a blob's
ORDER BY o.id
