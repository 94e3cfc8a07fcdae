-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock_timestamp() + make_interval(secs => $1), 'l', l.id
FROM repo_blobs l
WHERE NOT EXISTS (SELECT FROM manifest_blobs f WHERE f.link_id = l.id)
  AND NOT EXISTS (SELECT FROM manifest_children c WHERE c.repo_id = l.repo_id AND c.child = l.digest)
