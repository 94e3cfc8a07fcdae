-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET multipart_id = $3,
    part_size = $4
WHERE id = $1
  AND lock_token = $2
  AND plan_digest IS NULL
  AND (multipart_id IS NULL OR multipart_id = $3)  -- another one would be forgotten
