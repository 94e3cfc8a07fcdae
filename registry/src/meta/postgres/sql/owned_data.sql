-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What the generations are: data of a blob, or an open upload.
SELECT gen, form, tail
FROM blobs
WHERE gen = ANY ($1)
  AND form <> 0
UNION ALL
SELECT gen, 0::smallint, NULL
FROM uploads
WHERE gen = ANY ($1)
