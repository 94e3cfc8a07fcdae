-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE blobs
SET freed = (SELECT now FROM clock)
WHERE digest = ?1
  AND form <> 0  -- stored
  AND EXISTS (SELECT 1 FROM repo_blobs l WHERE l.blob_id = blobs.id)
