-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What grown.postgres.sql writes, for SQLite. How much it is stands in the temporary table `bench`.
BEGIN IMMEDIATE;

INSERT INTO repositories (id, name)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers, bench WHERE n < repositories - 1)
SELECT n + 1, 'bench/grown-' || n
FROM numbers;

-- Blobs of a repository follow one another: the shared layer, then config and layer of each image.
INSERT INTO blobs (id, digest, size, gen, form, freed)
WITH RECURSIVE sums (total) AS (
  SELECT repositories + 2 * manifests FROM bench
), numbers (n) AS (
  SELECT 0 UNION ALL SELECT n + 1 FROM numbers, sums WHERE n < total - 1
)
SELECT n + 1,
       unhex(printf('01%016x%048x', n * (9223372036854775807 / total), n)),
       4096,
       unhex(printf('%032x', n + 1)),
       1,
       (SELECT now FROM clock)
FROM numbers, sums;

INSERT INTO repo_blobs (id, repo_id, digest, blob_id, gen, touched)
SELECT b.id, (b.id - 1) / (2 * (manifests / repositories) + 1) + 1, b.digest, b.id, b.gen, b.freed
FROM bench
CROSS JOIN blobs b
ORDER BY b.id;

INSERT INTO manifests (id, repo_id, digest, state, gen, touched, pushed_at, media_type, size, body)
WITH RECURSIVE numbers (n) AS (
  SELECT 0 UNION ALL SELECT n + 1 FROM numbers, bench WHERE n < manifests - 1
), bodies (n, body) AS (
  SELECT n,
         CAST('{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"number":"'
           || printf('%0400d', n) || '"}}' AS BLOB)
  FROM numbers
)
SELECT n + 1,
       n / (manifests / repositories) + 1,
       unhex(printf('01%016x%048x', n * (9223372036854775807 / manifests), n)),
       1,
       unhex(printf('%032x', n + 1)),
       (SELECT now FROM clock),
       (SELECT now FROM clock),
       'application/vnd.oci.image.manifest.v1+json',
       length(body),
       body
FROM bodies, bench;

INSERT INTO manifest_blobs (manifest_id, link_id)
SELECT m.id, l.id
FROM bench
CROSS JOIN manifests m
JOIN repo_blobs l ON l.id IN (
  (m.repo_id - 1) * (2 * (manifests / repositories) + 1) + 1,
  (m.repo_id - 1) * (2 * (manifests / repositories) + 1) + 2 * ((m.id - 1) % (manifests / repositories)) + 2,
  (m.repo_id - 1) * (2 * (manifests / repositories) + 1) + 2 * ((m.id - 1) % (manifests / repositories)) + 3
);

INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)
SELECT m.repo_id,
       'v' || ((m.id - 1) % (manifests / repositories)),
       m.id,
       (SELECT epoch FROM meta),
       m.id,
       m.gen,
       m.pushed_at
FROM bench
CROSS JOIN manifests m
ORDER BY m.id;

-- What comes now gets versions of its own.
UPDATE counters SET value = max(value, (SELECT manifests FROM bench)) WHERE name = 'versions';
COMMIT
