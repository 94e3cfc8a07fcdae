-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held against the sweeper of blobs until the links are there.
SELECT id
FROM blobs
WHERE digest = ANY ($1)
ORDER BY id  -- the lock order
FOR KEY SHARE
