-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Deleted tags, and deleted manifests that no tag names and that do not live again.
SELECT repository, tag, digest, media_type, size, until / 1000 AS until
FROM (
  SELECT r.name AS repository, 't' || t.name AS place, t.name AS tag,
    m.digest, m.media_type, m.size, t.trashed_until AS until
  FROM tags t
  JOIN repositories r ON r.id = t.repo_id
  JOIN manifests m ON m.id = t.manifest_id
  WHERE t.trashed_until IS NOT NULL
  UNION ALL
  SELECT r.name, 'm' || lower(hex(m.digest)), NULL, m.digest, m.media_type, m.size, m.trashed_until
  FROM manifests m
  JOIN repositories r ON r.id = m.repo_id
  WHERE m.state = 2  -- trashed
    AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest_id = m.id)
    AND NOT EXISTS (
      SELECT 1 FROM manifests other
      WHERE other.repo_id = m.repo_id
        AND other.digest = m.digest
        AND (other.state = 1 OR other.state = 2 AND other.id > m.id)
    )
)
WHERE (?1 IS NULL OR repository = ?1)
  AND (repository, place) > (?2, ?3)
ORDER BY repository, place
LIMIT ?4
