-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- In a statement after the lock: a push that was quicker is seen.
SELECT l.id
FROM repo_blobs l
WHERE l.id = ANY ($1)
  AND (EXISTS (SELECT FROM manifest_blobs f WHERE f.link_id = l.id)
       -- children may be blobs, and may come after their index
       OR EXISTS (SELECT FROM manifest_children c WHERE c.repo_id = l.repo_id AND c.child = l.digest))
