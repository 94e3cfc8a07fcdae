-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DROP TABLE mirror_seen;
DROP TABLE upstreams;
DROP TABLE fetches;
DROP TABLE mirror_tags;
DROP TABLE orphans;
DROP TABLE losses;
DROP TABLE shards;
DROP TABLE outbox;
DROP TABLE outbox_steps;
DROP TABLE gc_queue;
DROP TABLE uploads;
DROP TABLE intents;
DROP TABLE tags;
DROP TABLE manifest_children;
DROP TABLE manifest_blobs;
DROP TABLE manifests;
DROP TABLE repo_blobs;
DROP TABLE blobs;
DROP TABLE repositories;
DROP TABLE counters;
DROP TABLE meta;
DROP TABLE _sqlx_migrations;
DROP VIEW clock;
