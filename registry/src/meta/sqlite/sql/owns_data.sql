-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What the generation is: data of a blob, or an open upload.
SELECT form, tail
FROM blobs
WHERE gen = ?1
  AND form <> 0
UNION ALL
SELECT 0, NULL
FROM uploads
WHERE gen = ?1
