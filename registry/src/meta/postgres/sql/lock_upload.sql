-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT
FROM uploads
WHERE id = $1
  AND lock_token IS NOT DISTINCT FROM $2  -- NULL: nobody holds it
FOR UPDATE
