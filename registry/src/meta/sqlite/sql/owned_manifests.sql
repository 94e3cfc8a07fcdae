-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the manifest records (repository, digest, generation, marker), and what goes with one, a row owns: its
-- place. A doomed one owns its marker alone.
SELECT wanted.key
FROM json_each(?1) wanted
CROSS JOIN repositories r ON r.name = wanted.value ->> 0
CROSS JOIN manifests m ON m.repo_id = r.id AND m.digest = unhex(wanted.value ->> 1)
WHERE m.gen = unhex(wanted.value ->> 2)
  AND (m.state < 3 OR wanted.value ->> 3)
LIMIT 1
