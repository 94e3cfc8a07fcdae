-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT DISTINCT c.digest
FROM repositories r
JOIN promotion_candidates c ON c.repo_id = r.id
WHERE r.name = ?1
