-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT at, id, outcome, evidence
FROM promotions
WHERE (?1 IS NULL OR source_repo = ?1 OR target_repo = ?1)
  AND (?2 IS NULL OR policy = ?2)
  AND (?3 IS NULL OR digest = ?3)
  AND (at, id) < (?4, ?5)
ORDER BY at DESC, id DESC
LIMIT ?6
