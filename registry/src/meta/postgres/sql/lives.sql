-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, state
FROM manifests
WHERE repo_id = $1
  AND digest = ANY ($2)
  AND state IN (1, 2)
ORDER BY id
