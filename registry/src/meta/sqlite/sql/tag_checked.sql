-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT now - t.checked_at
FROM clock, repositories r
JOIN mirror_tags t ON t.repo_id = r.id
WHERE r.name = ?1
  AND t.name = ?2
