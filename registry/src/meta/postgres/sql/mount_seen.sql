-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The usual beginning of a mount as one statement: the source sees the blob, and the repository has a row. Else no row.
INSERT INTO intents (epoch, deadline, kind, repo_id, gen, keys)
SELECT $1, clock_timestamp() + make_interval(secs => $7), 'l', target.id, $5, $6
FROM meta, repositories target
WHERE meta.epoch = $1
  AND meta.fence = pg_postmaster_start_time()
  AND target.name = $4
  AND EXISTS (
    SELECT FROM repositories r
    JOIN repo_blobs l ON l.repo_id = r.id
    JOIN blobs b ON b.id = l.blob_id
    WHERE r.name = $2
      AND l.digest = $3
      AND l.gen IS NOT NULL  -- else it is hidden
      AND b.form <> 0        -- else its data is absent
  )
RETURNING id
