-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id,
       r.name AS repository,
       m.digest,
       extract(epoch FROM clock_timestamp() - m.pushed_at)::float8 AS age,
       p.day - DATE '1970-01-01' AS pulled,
       (clock_timestamp() AT TIME ZONE 'UTC')::date - DATE '1970-01-01' AS today,
       EXISTS (
         SELECT 1 FROM promotions WHERE source_repo = r.name AND digest = m.digest AND gen IS NOT NULL
       ) OR EXISTS (
         SELECT 1 FROM promotion_candidates c WHERE c.repo_id = m.repo_id AND c.digest = m.digest
       ) AS is_promoted,
       m.subject,
       ARRAY(SELECT child FROM manifest_children WHERE parent_id = m.id) AS children,
       ARRAY(
         SELECT name::text FROM tags t WHERE t.manifest_id = m.id AND t.trashed_until IS NULL
       ) AS tags,
       blobs.digests,
       blobs.sizes
FROM manifests m
JOIN repositories r ON r.id = m.repo_id
LEFT JOIN pulls p ON p.manifest_id = m.id
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(l.digest), '{}') AS digests,
         -- What is hidden or absent takes no room.
         coalesce(array_agg(CASE WHEN l.gen IS NOT NULL AND b.form <> 0 THEN b.size ELSE 0 END), '{}') AS sizes
  FROM manifest_blobs f
  JOIN repo_blobs l ON l.id = f.link_id
  JOIN blobs b ON b.id = l.blob_id
  WHERE f.manifest_id = m.id
) blobs
WHERE m.state = 1
  AND m.id > $2
  -- At the path, or below it: `0` is what comes after `/`.
  AND (r.name = $1 OR (r.name > $1 || '/' AND r.name < $1 || '0'))
ORDER BY m.id
LIMIT $3
