-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT EXISTS (
  SELECT FROM manifest_children c
  JOIN manifests p ON p.id = c.parent_id
  WHERE c.repo_id = $1
    AND c.child = $2
    AND p.state < 2  -- live or pending; the trash does not count for a client
)
