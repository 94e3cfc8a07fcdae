-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT u.lock_until IS NOT NULL AND u.lock_until > clock_timestamp() AS busy,
       u.lock_token  -- of a request that died, if any
FROM uploads u
JOIN repositories r ON r.id = u.repo_id
WHERE u.id = $1
  AND r.name = $2
  AND u.principal = $3
  AND u.expires_at > clock_timestamp()
FOR UPDATE OF u
