-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As if a month had passed.
BEGIN IMMEDIATE;
UPDATE meta SET walked_at = walked_at - 2592000000000;
UPDATE gc_queue SET due = due - 2592000000000;
UPDATE outbox SET due = due - 2592000000000;
UPDATE repo_blobs SET touched = touched - 2592000000000;
UPDATE blobs SET freed = freed - 2592000000000;
UPDATE manifests SET touched = touched - 2592000000000, trashed_until = trashed_until - 2592000000000;
UPDATE tags SET trashed_until = trashed_until - 2592000000000 WHERE trashed_until IS NOT NULL;
COMMIT
