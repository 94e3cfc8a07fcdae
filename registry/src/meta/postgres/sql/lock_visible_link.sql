-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Waits for pins that hold it.
SELECT id, blob_id, gen
FROM repo_blobs
WHERE repo_id = $1
  AND digest = $2
  AND gen IS NOT NULL
FOR UPDATE
