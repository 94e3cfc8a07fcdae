-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- One row a kind: how many rows it had when the walk began. Whoever finds them has come second.
INSERT INTO losses (epoch, kind, total)
SELECT $1, counted.kind, counted.total
FROM (
  SELECT 'blobs' AS kind, count(*) AS total FROM blobs WHERE form <> 0
  UNION ALL
  SELECT 'links', count(*) FROM repo_blobs WHERE gen IS NOT NULL
  UNION ALL
  SELECT 'manifests', count(*) FROM manifests WHERE state = 1
  UNION ALL
  SELECT 'tags', count(*) FROM tags
) AS counted
ON CONFLICT DO NOTHING
