-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

WITH blobs AS (
  INSERT INTO manifest_blobs (manifest_id, link_id)
  SELECT found.manifest, l.id
  FROM unnest((SELECT $2::bigint[]), (SELECT $3::bytea[])) AS found (manifest, digest)
  -- as in blob_facts
  CROSS JOIN LATERAL (SELECT id FROM repo_blobs WHERE repo_id = $1 AND repo_blobs.digest = found.digest LIMIT 1) l
  ON CONFLICT DO NOTHING
)
INSERT INTO manifest_children (parent_id, repo_id, child)
SELECT parent, $1, child
FROM unnest((SELECT $4::bigint[]), (SELECT $5::bytea[])) AS found (parent, child)
ON CONFLICT DO NOTHING
