-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest, epoch, seq, gen
FROM promotions
WHERE target_repo = ?1
  AND digest >= ?2
  AND digest <= ?3
  AND gen IS NOT NULL  -- else there is no record
ORDER BY digest
LIMIT ?4
