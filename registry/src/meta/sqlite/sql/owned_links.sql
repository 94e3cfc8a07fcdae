-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the link records (repository, digest, generation) a row owns: its place.
SELECT wanted.key
FROM json_each(?1) wanted
CROSS JOIN repositories r ON r.name = wanted.value ->> 0
CROSS JOIN repo_blobs l ON l.repo_id = r.id AND l.digest = unhex(wanted.value ->> 1)
WHERE l.gen = unhex(wanted.value ->> 2)
LIMIT 1
