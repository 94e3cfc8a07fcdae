-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the tag records (repository, tag, generation) a row owns: its own, and the one that a tombstone hides.
SELECT wanted.key
FROM json_each(?1) wanted
CROSS JOIN repositories r ON r.name = wanted.value ->> 0
CROSS JOIN tags t ON t.repo_id = r.id AND t.name = wanted.value ->> 1
WHERE unhex(wanted.value ->> 2) IN (t.gen, t.prev_gen)
LIMIT 1
