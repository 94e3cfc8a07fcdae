-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Children are manifests, or blobs.
SELECT m.digest
FROM json_each(?2) wanted
CROSS JOIN manifests m ON m.repo_id = ?1 AND m.digest = unhex(wanted.value)
WHERE m.state = 1  -- live
UNION
SELECT l.digest
FROM json_each(?2) wanted
CROSS JOIN repo_blobs l ON l.repo_id = ?1 AND l.digest = unhex(wanted.value)
CROSS JOIN blobs b ON b.id = l.blob_id
WHERE l.gen IS NOT NULL
  AND b.form <> 0
