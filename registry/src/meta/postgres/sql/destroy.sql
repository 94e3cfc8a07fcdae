-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Those of the migrations by name: others may share the schema.
DROP TABLE runs, promotion_candidates, promotions, usage_reports, pull_writers, pulls,
           mirror_seen, upstreams, fetches, mirror_tags, orphans, losses, shards, outbox, gc_queue, uploads, tag_holds, intents, tags, manifest_children, manifest_blobs, manifests,
           repo_blobs, blobs, repositories, meta, _sqlx_migrations
