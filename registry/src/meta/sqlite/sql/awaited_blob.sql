-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.size
FROM repositories r
JOIN repo_blobs l ON l.repo_id = r.id
JOIN blobs b ON b.id = l.blob_id
WHERE r.name = ?1
  AND l.digest = ?2
  AND EXISTS (
    SELECT 1 FROM manifest_blobs mb
    JOIN manifests m ON m.id = mb.manifest_id
    WHERE mb.link_id = l.id AND m.state = 1  -- live: so the upstream said that the repository has it
  )
