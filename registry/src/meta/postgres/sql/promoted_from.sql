-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest,
       target_repo,
       floor(extract(epoch FROM at) * 1000)::bigint AS at
FROM promotions
WHERE source_repo = $1
  AND outcome = 'Promoted'
