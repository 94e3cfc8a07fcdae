-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Lists as JSON: digests in hex, as they stand in columns.
SELECT m.id,
       r.name AS repository,
       m.digest,
       clock.now - m.pushed_at AS age,
       p.day AS pulled,
       clock.now / 86400000000 AS today,
       EXISTS (
         SELECT 1 FROM promotions WHERE source_repo = r.name AND digest = m.digest AND gen IS NOT NULL
       ) OR EXISTS (
         SELECT 1 FROM promotion_candidates c WHERE c.repo_id = m.repo_id AND c.digest = m.digest
       ) AS is_promoted,
       m.subject,
       (SELECT json_group_array(lower(hex(child))) FROM manifest_children WHERE parent_id = m.id) AS children,
       (
         SELECT json_group_array(name) FROM tags t WHERE t.manifest_id = m.id AND t.trashed_until IS NULL
       ) AS tags,
       (
         -- What is hidden or absent takes no room.
         SELECT json_group_array(json_array(
           lower(hex(l.digest)), CASE WHEN l.gen IS NOT NULL AND b.form <> 0 THEN b.size ELSE 0 END
         ))
         FROM manifest_blobs f
         JOIN repo_blobs l ON l.id = f.link_id
         JOIN blobs b ON b.id = l.blob_id
         WHERE f.manifest_id = m.id
       ) AS blobs
FROM clock, manifests m
JOIN repositories r ON r.id = m.repo_id
LEFT JOIN pulls p ON p.manifest_id = m.id
WHERE m.state = 1
  AND m.id > ?2
  -- At the path, or below it: `0` is what comes after `/`.
  AND (r.name = ?1 OR (r.name > ?1 || '/' AND r.name < ?1 || '0'))
ORDER BY m.id
LIMIT ?3
