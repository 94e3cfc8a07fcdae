-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Another push of the same manifest has made them already, or makes them: its row is locked.
WITH blobs AS (
  INSERT INTO manifest_blobs (manifest_id, link_id)
  SELECT $1, link FROM unnest($2::bigint[]) AS link
  ON CONFLICT DO NOTHING
)
INSERT INTO manifest_children (parent_id, repo_id, child)
SELECT $1, $3, child FROM unnest($4::bytea[]) AS child
ON CONFLICT DO NOTHING
