-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest, gen, form, tail, size
FROM blobs
WHERE digest >= ?1
  AND digest <= ?2
  AND form <> 0
ORDER BY digest
LIMIT ?3
