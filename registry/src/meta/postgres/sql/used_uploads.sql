-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT u.id, u.lock_token
FROM uploads u
JOIN blobs b ON b.gen = u.gen AND b.form <> 0
WHERE u.lock_until IS NULL
   OR u.lock_until < clock_timestamp()  -- else its request ends it
