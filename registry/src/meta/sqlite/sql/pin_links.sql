-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT l.digest
FROM json_each(?2) wanted
CROSS JOIN repo_blobs l ON l.repo_id = ?1 AND l.digest = unhex(wanted.value)
CROSS JOIN blobs b ON b.id = l.blob_id
WHERE l.gen IS NOT NULL  -- visible
  AND b.form <> 0  -- stored
