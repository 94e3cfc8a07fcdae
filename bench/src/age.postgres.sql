-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- As if a month had passed.
UPDATE meta SET walked_at = walked_at - interval '30 days';
UPDATE gc_queue SET due = due - interval '30 days';
UPDATE outbox SET due = due - interval '30 days';
UPDATE repo_blobs SET touched = touched - interval '30 days';
UPDATE blobs SET freed = freed - interval '30 days';
UPDATE manifests SET touched = touched - interval '30 days', trashed_until = trashed_until - interval '30 days';
UPDATE tags SET trashed_until = trashed_until - interval '30 days' WHERE trashed_until IS NOT NULL;
