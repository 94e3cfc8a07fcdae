-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Deleted tags, and deleted manifests that no tag names and that do not live again. A page is taken repository by
-- repository, in the order of their names.
SELECT r.name AS repository, gone.*
FROM repositories r
CROSS JOIN LATERAL (
  SELECT ('t' || t.name) COLLATE "C" AS place,
         t.name AS tag,
         m.digest,
         m.media_type,
         m.size,
         (extract(epoch FROM t.trashed_until) * 1000)::bigint AS until
  FROM tags t
  JOIN manifests m ON m.id = t.manifest_id
  WHERE t.repo_id = r.id
    AND t.trashed_until IS NOT NULL
  UNION ALL
  SELECT 'm' || encode(m.digest, 'hex'),
         NULL,
         m.digest,
         m.media_type,
         m.size,
         (extract(epoch FROM m.trashed_until) * 1000)::bigint
  FROM manifests m
  WHERE m.repo_id = r.id
    AND m.state = 2  -- trashed
    AND NOT EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id)
    AND NOT EXISTS (
      SELECT FROM manifests other
      WHERE other.repo_id = m.repo_id
        AND other.digest = m.digest
        AND (other.state = 1 OR other.state = 2 AND other.id > m.id)
    )
) gone
WHERE ($1::text IS NULL OR r.name = $1)
  AND r.name >= $2
  AND (r.name > $2 OR gone.place > $3)
ORDER BY r.name, gone.place
LIMIT $4
