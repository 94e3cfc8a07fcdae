-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held against the sweeper of blobs until the link is there. Committers do not wait for each other.
SELECT id, gen AS generation, form, tail, size
FROM blobs
WHERE digest = $1
FOR KEY SHARE
