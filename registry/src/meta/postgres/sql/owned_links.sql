-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the link records a row owns.
SELECT key.place
FROM unnest($1::text[], $2::bytea[], $3::uuid[]) WITH ORDINALITY AS key (repository, digest, gen, place)
JOIN repositories r ON r.name = key.repository
JOIN repo_blobs l ON l.repo_id = r.id AND l.digest = key.digest
WHERE l.gen = key.gen
