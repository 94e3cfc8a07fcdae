-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.id, b.digest, b.size, b.gen, b.form, b.tail,
  max(b.freed, coalesce((SELECT walked_at FROM meta), 0)) + ?2 - (SELECT now FROM clock) AS wait,
  EXISTS (SELECT 1 FROM repo_blobs l WHERE l.blob_id = b.id) AS held
FROM json_each(?1) wanted
JOIN blobs b ON b.id = wanted.value
