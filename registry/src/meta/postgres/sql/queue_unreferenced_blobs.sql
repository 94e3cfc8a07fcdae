-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO gc_queue (due, kind, ref)
SELECT clock_timestamp() + make_interval(secs => $1), 'b', b.id
FROM blobs b
WHERE NOT EXISTS (SELECT FROM repo_blobs l WHERE l.blob_id = b.id)
