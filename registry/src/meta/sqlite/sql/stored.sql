-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT b.freed > (SELECT now FROM clock) - ?2 AS fresh  -- no need to write
FROM blobs b
WHERE b.digest = ?1
  AND b.form <> 0  -- stored
  AND EXISTS (SELECT 1 FROM repo_blobs l WHERE l.blob_id = b.id)  -- else it is a candidate already
