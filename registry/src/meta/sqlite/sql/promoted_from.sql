-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest, target_repo, at / 1000 AS at
FROM promotions
WHERE source_repo = ?1
  AND outcome = 'Promoted'
