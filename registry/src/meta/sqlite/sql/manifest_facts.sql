-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, m.digest, m.state, m.gen
FROM json_each(?2) wanted
CROSS JOIN manifests m ON m.repo_id = ?1 AND m.digest = unhex(wanted.value)
