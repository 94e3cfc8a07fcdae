-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, kind, manifest_id, repo_id, keys, ledger
FROM intents
WHERE deadline < (SELECT now FROM clock)
  AND id > ?1
ORDER BY id
LIMIT ?2
