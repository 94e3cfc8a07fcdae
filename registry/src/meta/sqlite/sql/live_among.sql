-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.digest
FROM json_each(?2) wanted
CROSS JOIN repositories r ON r.name = ?1
CROSS JOIN manifests m ON m.repo_id = r.id AND m.digest = unhex(wanted.value)
WHERE m.state = 1
