-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the tag records a row owns: its own, and the one that a tombstone hides.
SELECT key.place
FROM unnest($1::text[], $2::text[], $3::uuid[]) WITH ORDINALITY AS key (repository, tag, gen, place)
JOIN repositories r ON r.name = key.repository
JOIN tags t ON t.repo_id = r.id AND t.name = key.tag
WHERE key.gen IN (t.gen, t.prev_gen)
