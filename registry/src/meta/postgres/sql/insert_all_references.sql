-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH blobs AS (
  INSERT INTO manifest_blobs (manifest_id, link_id)
  SELECT found.manifest, l.id
  FROM unnest($2::bigint[], $3::bytea[]) AS found (manifest, digest)
  JOIN repo_blobs l ON l.repo_id = $1 AND l.digest = found.digest
  ON CONFLICT DO NOTHING
)
INSERT INTO manifest_children (parent_id, repo_id, child)
SELECT parent, $1, child
FROM unnest($4::bigint[], $5::bytea[]) AS found (parent, child)
ON CONFLICT DO NOTHING
