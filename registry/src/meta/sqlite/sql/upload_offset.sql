-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT u.off
FROM uploads u
JOIN repositories r ON r.id = u.repo_id
WHERE u.id = ?1
  AND r.name = ?2
  AND u.principal = ?3
  AND u.expires_at > (SELECT now FROM clock)
