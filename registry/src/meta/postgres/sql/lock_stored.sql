-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held against the sweeper of blobs until the link is there.
SELECT id
FROM blobs
WHERE digest = $1
  AND form <> 0
FOR KEY SHARE
