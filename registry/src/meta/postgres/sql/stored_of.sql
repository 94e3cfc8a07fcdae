-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT gen, form, tail
FROM blobs
WHERE gen = ANY ($1)
  AND form <> 0
