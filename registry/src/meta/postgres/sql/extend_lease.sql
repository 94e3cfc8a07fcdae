-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET lock_until = clock_timestamp() + make_interval(secs => $3)
WHERE id = $1
  AND lock_token = $2
