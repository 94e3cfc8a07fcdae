-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Reads no more rows than the limit.
SELECT NOT EXISTS (
  SELECT 1
  FROM repositories r
  JOIN manifests m ON m.repo_id = r.id
  WHERE r.name = ?1
    AND m.subject = ?2
    AND m.state = 1
  LIMIT 1 OFFSET ?3 - 1
)
