-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT l.id, l.digest, l.gen
FROM json_each(?2) wanted
CROSS JOIN repo_blobs l ON l.repo_id = ?1 AND l.digest = unhex(wanted.value)
