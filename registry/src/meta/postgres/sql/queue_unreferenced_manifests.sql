-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock_timestamp() + make_interval(secs => $1), 'm', m.id
FROM manifests m
WHERE m.state = 1
  AND NOT EXISTS (SELECT FROM tags t WHERE t.manifest_id = m.id)
  AND NOT EXISTS (SELECT FROM manifest_children c WHERE c.repo_id = m.repo_id AND c.child = m.digest)
