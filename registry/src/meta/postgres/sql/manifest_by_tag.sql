-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The hot path: one round trip, the body included.
SELECT m.id,
       m.digest,
       m.media_type,
       m.size,
       m.gen AS generation,
       m.body,
       m.touched < clock_timestamp() - make_interval(secs => $3) AS lease_is_old
FROM repositories r
JOIN tags t ON t.repo_id = r.id
JOIN manifests m ON m.id = t.manifest_id
WHERE r.name = $1
  AND t.name = $2
  AND t.trashed_until IS NULL  -- else the row is a tombstone
  AND m.state = 1
