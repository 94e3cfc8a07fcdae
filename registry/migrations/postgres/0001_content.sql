-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Keys of the bucket are derived from these rows, never stored beside them. Digests are one byte for the
-- algorithm, then the hash. Times are the database's, never a client's.

CREATE TABLE meta (
  one          bool PRIMARY KEY DEFAULT true CHECK (one),
  registry     uuid NOT NULL,
  schema       int NOT NULL,
  epoch        bigint NOT NULL DEFAULT 0,
  epoch_gen    uuid,
  fence        timestamptz NOT NULL DEFAULT '-infinity',  -- start of the server that the epoch belongs to
  reconciled   bigint NOT NULL DEFAULT -1,                -- the last epoch whose walk has ended
  walked_at    timestamptz,                               -- and when: all leases count from then at least
  claim        bigint NOT NULL DEFAULT 0,
  claim_gen    uuid,
  claim_until  timestamptz
);

-- The order of tags. CACHE 1: a cached range would order by connection, not by time.
CREATE SEQUENCE versions CACHE 1;

CREATE TABLE repositories (
  id    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name  text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE blobs (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest  bytea NOT NULL UNIQUE,
  size    bigint NOT NULL,
  gen     uuid,
  form    smallint NOT NULL CHECK (form BETWEEN 0 AND 3),  -- 0 absent, 1 inline, 2 upload, 3 tail
  tail    int,  -- an absent blob keeps it: its pointer may still have to go
  freed   timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK (form = 0 OR (form = 3) = (tail IS NOT NULL))
);
-- Partial on purpose: with a full one every UPDATE of gen takes FOR UPDATE and meets committers' KEY SHARE.
CREATE UNIQUE INDEX blobs_gen ON blobs (gen) WHERE gen IS NOT NULL;

CREATE TABLE repo_blobs (
  id       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  repo_id  int NOT NULL REFERENCES repositories,
  digest   bytea NOT NULL,
  blob_id  bigint NOT NULL REFERENCES blobs,
  gen      uuid,  -- NULL: hidden, there is no link record
  touched  timestamptz NOT NULL DEFAULT clock_timestamp(),  -- not indexed, so that a renewal stays in its page
  PRIMARY KEY (repo_id, digest)
) WITH (fillfactor = 90);
CREATE INDEX repo_blobs_blob ON repo_blobs (blob_id);

CREATE TABLE manifests (
  id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  repo_id             int NOT NULL REFERENCES repositories,
  digest              bytea NOT NULL,
  state               smallint NOT NULL CHECK (state BETWEEN 0 AND 3),  -- 0 pending, 1 live, 2 trashed, 3 doomed
  gen                 uuid,  -- NULL while pending
  pending_until       timestamptz,
  trashed_until       timestamptz,
  touched             timestamptz NOT NULL DEFAULT clock_timestamp(),
  unreferenced_since  timestamptz,
  pushed_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
  media_type          text NOT NULL,
  artifact_type       text,
  subject             bytea,
  annotations         jsonb,
  size                int NOT NULL,
  body                bytea,  -- NULL above 64 KiB: the record has it
  CHECK (CASE state WHEN 0 THEN gen IS NULL WHEN 3 THEN true ELSE gen IS NOT NULL END)
);
CREATE UNIQUE INDEX manifests_live ON manifests (repo_id, digest) WHERE state < 2;
CREATE UNIQUE INDEX manifests_digest ON manifests (repo_id, digest, gen);
CREATE INDEX manifests_subject ON manifests (repo_id, subject, id) WHERE subject IS NOT NULL;

CREATE TABLE manifest_blobs (
  manifest_id  bigint NOT NULL REFERENCES manifests ON DELETE CASCADE,
  link_id      bigint NOT NULL REFERENCES repo_blobs (id),
  PRIMARY KEY (manifest_id, link_id)
);
CREATE INDEX manifest_blobs_link ON manifest_blobs (link_id);

-- By the digest that is wanted, not by a row: the child may come later.
CREATE TABLE manifest_children (
  parent_id  bigint NOT NULL REFERENCES manifests ON DELETE CASCADE,
  repo_id    int NOT NULL,
  child      bytea NOT NULL,
  PRIMARY KEY (parent_id, child)
);
CREATE INDEX manifest_children_child ON manifest_children (repo_id, child);

CREATE TABLE tags (
  repo_id        int NOT NULL REFERENCES repositories,
  name           text COLLATE "C" NOT NULL,
  manifest_id    bigint NOT NULL REFERENCES manifests,
  epoch          bigint NOT NULL,
  seq            bigint NOT NULL,
  gen            uuid NOT NULL,
  pushed_at      timestamptz NOT NULL,
  trashed_until  timestamptz,  -- set: (epoch, seq, gen) is the tombstone and prev_* the record it hides
  prev_epoch     bigint,
  prev_seq       bigint,
  prev_gen       uuid,
  PRIMARY KEY (repo_id, name),
  CHECK ((trashed_until IS NULL) = (prev_gen IS NULL))
);
CREATE INDEX tags_manifest ON tags (manifest_id);
CREATE INDEX tags_trash ON tags (trashed_until, repo_id, name) WHERE trashed_until IS NOT NULL;

CREATE TABLE intents (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  epoch        bigint NOT NULL,
  deadline     timestamptz NOT NULL,
  kind         "char" NOT NULL,  -- m manifest, l link
  manifest_id  bigint,
  repo_id      int,
  gen          uuid,
  tags         jsonb,  -- [{"name":…,"seq":…}]
  ledger       jsonb,
  keys         text[] NOT NULL
);
CREATE INDEX intents_deadline ON intents (deadline);
CREATE INDEX intents_manifest ON intents (manifest_id);
CREATE INDEX intents_tags ON intents (repo_id) WHERE tags IS NOT NULL;
CREATE INDEX intents_keys ON intents USING gin (keys);

CREATE TABLE tag_holds (
  repo_id    int NOT NULL,
  name       text COLLATE "C" NOT NULL,
  digest     bytea NOT NULL,
  intent_id  bigint NOT NULL REFERENCES intents ON DELETE CASCADE,
  PRIMARY KEY (repo_id, name, intent_id)
);

CREATE TABLE uploads (
  id            uuid PRIMARY KEY,
  repo_id       int NOT NULL REFERENCES repositories,
  principal     text NOT NULL,
  gen           uuid NOT NULL,
  epoch         bigint NOT NULL,                 -- in which its generation was begun
  lease         int NOT NULL DEFAULT 0,
  multipart_id  text,
  part_size     bigint,
  parts         jsonb NOT NULL DEFAULT '[]',
  spec          jsonb,
  off           bigint NOT NULL DEFAULT 0,
  alg           smallint NOT NULL,
  hash          bytea NOT NULL DEFAULT '',
  tails         int[] NOT NULL DEFAULT '{}',     -- leases whose staged bytes count, in order
  tail_sizes    bigint[] NOT NULL DEFAULT '{}',  -- and how many bytes
  spent         int[] NOT NULL DEFAULT '{}',     -- leases that may have staged what does not count
  plan_digest   bytea,                           -- set: closing, and only this way
  plan_form     smallint,                        -- 0: the data is stored already, only a link is written
  plan_tail     int,
  plan_size     bigint,
  lock_token    uuid,
  lock_until    timestamptz,
  expiry        interval NOT NULL,
  expires_at    timestamptz NOT NULL,
  CHECK ((lock_token IS NULL) = (lock_until IS NULL)),
  CHECK (cardinality(tails) = cardinality(tail_sizes))
);
CREATE INDEX uploads_principal ON uploads (principal);
CREATE INDEX uploads_expiry ON uploads (expires_at);
CREATE INDEX uploads_gen ON uploads (gen);

-- Append-only; repeats are allowed.
CREATE TABLE gc_queue (
  id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  due   timestamptz NOT NULL,
  kind  "char" NOT NULL,  -- m manifest, x purge of a manifest, l link, b blob
  ref   bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
CREATE INDEX gc_queue_due ON gc_queue (kind, due);

CREATE TABLE outbox (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  due        timestamptz NOT NULL,
  steps      text[] NOT NULL,  -- +key: put empty, -key: delete, !key id: abort a multipart upload; in order
  lane       text COLLATE "C",  -- one tag: its rows run strictly by id
  then_kind  "char",
  then_ref   bigint,  -- a row that writes evidence about a manifest names the manifest, without a kind
  tries      int NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
CREATE INDEX outbox_due ON outbox (due, id);
CREATE INDEX outbox_owed ON outbox (due, id) WHERE left(steps[1], 1) = '+';
CREATE INDEX outbox_lane ON outbox (lane, id);
CREATE INDEX outbox_then ON outbox (then_ref);
CREATE INDEX outbox_steps ON outbox USING gin (steps);

-- Parts of the bucket that replicas compare or verify, each under a lease.
CREATE TABLE shards (
  epoch  bigint NOT NULL,
  job    text NOT NULL,
  phase  smallint NOT NULL,  -- a lower one is done first
  shard  text COLLATE "C" NOT NULL,
  owner  uuid,
  until  timestamptz,
  done   bool NOT NULL DEFAULT false,
  -- Of a verification:
  planned   timestamptz NOT NULL DEFAULT clock_timestamp(),
  begun     timestamptz,
  findings  bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (epoch, job, shard)
);

-- Rows whose objects a walk found to be missing. Too many stop it.
CREATE TABLE losses (
  epoch     bigint NOT NULL,
  kind      text NOT NULL,
  total     bigint NOT NULL,
  lost      bigint NOT NULL DEFAULT 0,
  stopped   bigint,  -- how many there would have been
  accepted  bool NOT NULL DEFAULT false,
  PRIMARY KEY (epoch, kind)
);

-- Objects that no row names, since when, and when they were last seen.
CREATE TABLE orphans (
  key         text COLLATE "C" PRIMARY KEY,
  first_seen  timestamptz NOT NULL,
  last_seen   timestamptz NOT NULL
);
