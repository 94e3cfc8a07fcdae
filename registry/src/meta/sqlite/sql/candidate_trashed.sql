-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT m.id, r.name AS repository, m.digest, m.subject, m.gen,
  -- What the bucket still lacks, tombstones or the marker, must be there before the record goes.
  CASE WHEN EXISTS (SELECT 1 FROM outbox o WHERE o.then_ref = m.id AND o.then_kind IS NULL) THEN ?2
       ELSE m.trashed_until - (SELECT now FROM clock) END AS wait,
  EXISTS (SELECT 1 FROM tags t WHERE t.manifest_id = m.id) AS held  -- whoever takes the last away queues it again
FROM json_each(?1) wanted
CROSS JOIN manifests m ON m.id = wanted.value
CROSS JOIN repositories r ON r.id = m.repo_id
WHERE m.state = 2
