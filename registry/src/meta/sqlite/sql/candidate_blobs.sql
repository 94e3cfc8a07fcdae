-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.id, b.digest, b.size, b.gen, b.form, b.tail,
  max(max(b.freed, coalesce((SELECT walked_at FROM meta), 0)) + ?2 - (SELECT now FROM clock),
    -- An upload of an earlier incarnation that became this blob: of it everything counts as in use.
    iif(EXISTS (SELECT 1 FROM uploads u WHERE u.gen = b.gen), ?3, 0)) AS wait,
  EXISTS (SELECT 1 FROM repo_blobs l WHERE l.blob_id = b.id) AS held
FROM json_each(?1) wanted
CROSS JOIN blobs b ON b.id = wanted.value
