-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Which of the manifest records (and what goes with one) a row owns. A doomed one owns its marker alone.
SELECT key.place
FROM unnest($1::text[], $2::bytea[], $3::uuid[], $4::bool[]) WITH ORDINALITY AS key (repository, digest, gen, marker, place)
JOIN repositories r ON r.name = key.repository
JOIN manifests m ON m.repo_id = r.id AND m.digest = key.digest
WHERE m.gen = key.gen
  AND (m.state < 3 OR key.marker)
