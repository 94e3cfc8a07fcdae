-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT extract(epoch FROM clock_timestamp() - t.checked_at)::float8
FROM repositories r
JOIN mirror_tags t ON t.repo_id = r.id
WHERE r.name = $1
  AND t.name = $2
