-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The tables are those of PostgreSQL. Times are microseconds since 1970, uuids and digests blobs (a digest is
-- one byte for the algorithm, then the hash), lists JSON text.
-- Ids that other rows or queues remember are AUTOINCREMENT: a number must never mean a second thing.

-- The database's clock. It stands still within a statement.
CREATE VIEW clock AS SELECT CAST(unixepoch('subsec') * 1e6 AS INTEGER) AS now;

CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  registry BLOB NOT NULL,
  schema INTEGER NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,
  epoch_gen BLOB,
  fence BLOB,  -- which holder of the lock owns the epoch
  reconciled INTEGER NOT NULL DEFAULT -1,  -- the last epoch whose walk has ended
  walked_at INTEGER,  -- and when: all leases count from then at least. NULL: from when the current walk ends
  handed_over BLOB,  -- what the last holder of the lock left when it ended in order; the lock says the same
  claim INTEGER NOT NULL DEFAULT 0,
  claim_gen BLOB,
  claim_until INTEGER
) STRICT;

-- `versions`: seq of tags.
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('versions', 0);

CREATE TABLE repositories (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE blobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  gen BLOB,
  form INTEGER NOT NULL CHECK (form BETWEEN 0 AND 3),  -- 0 absent, 1 inline, 2 upload, 3 tail
  tail INTEGER CHECK (form = 0 OR (tail IS NOT NULL) = (form = 3)),  -- an absent blob keeps it
  freed INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX blobs_gen ON blobs (gen) WHERE gen IS NOT NULL;

CREATE TABLE repo_blobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  repo_id INTEGER NOT NULL REFERENCES repositories,
  digest BLOB NOT NULL,
  blob_id INTEGER NOT NULL REFERENCES blobs,
  gen BLOB,  -- NULL: hidden, there is no link record
  touched INTEGER NOT NULL,
  UNIQUE (repo_id, digest)
) STRICT;
CREATE INDEX repo_blobs_blob ON repo_blobs (blob_id);

CREATE TABLE manifests (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  repo_id INTEGER NOT NULL REFERENCES repositories,
  digest BLOB NOT NULL,
  state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),  -- 0 pending, 1 live, 2 trashed, 3 doomed
  gen BLOB CHECK (state <> 1 OR gen IS NOT NULL),
  pending_until INTEGER,
  trashed_until INTEGER,
  touched INTEGER NOT NULL,
  unreferenced_since INTEGER,
  pushed_at INTEGER NOT NULL,
  media_type TEXT NOT NULL,
  artifact_type TEXT,
  subject BLOB,
  annotations TEXT,
  size INTEGER NOT NULL,
  body BLOB  -- NULL above 64 KiB: read the record. Last, so that nothing else lies on its overflow pages
) STRICT;
CREATE UNIQUE INDEX manifests_live ON manifests (repo_id, digest) WHERE state < 2;
CREATE UNIQUE INDEX manifests_digest ON manifests (repo_id, digest, gen);
CREATE INDEX manifests_subject ON manifests (repo_id, subject) WHERE subject IS NOT NULL;

CREATE TABLE manifest_blobs (
  manifest_id INTEGER NOT NULL REFERENCES manifests ON DELETE CASCADE,
  link_id INTEGER NOT NULL REFERENCES repo_blobs (id),
  PRIMARY KEY (manifest_id, link_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_blobs_link ON manifest_blobs (link_id);

-- By wanted digest: the child may come later.
CREATE TABLE manifest_children (
  parent_id INTEGER NOT NULL REFERENCES manifests ON DELETE CASCADE,
  repo_id INTEGER NOT NULL,
  child BLOB NOT NULL,
  PRIMARY KEY (parent_id, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_children_child ON manifest_children (repo_id, child);

CREATE TABLE tags (
  repo_id INTEGER NOT NULL REFERENCES repositories,
  name TEXT NOT NULL,
  manifest_id INTEGER NOT NULL REFERENCES manifests,
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  gen BLOB NOT NULL,
  pushed_at INTEGER NOT NULL,
  trashed_until INTEGER,  -- set: (epoch, seq, gen) is the tombstone and prev_* the record it hides
  prev_epoch INTEGER,
  prev_seq INTEGER,
  prev_gen BLOB,
  PRIMARY KEY (repo_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_manifest ON tags (manifest_id);
CREATE INDEX tags_trash ON tags (trashed_until, repo_id, name) WHERE trashed_until IS NOT NULL;

CREATE TABLE intents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  epoch INTEGER NOT NULL,
  deadline INTEGER NOT NULL,
  kind TEXT NOT NULL,  -- m manifest, l link
  manifest_id INTEGER,
  repo_id INTEGER,
  gen BLOB,
  tags TEXT,  -- [{name, seq, gen}]
  keys TEXT NOT NULL
) STRICT;
CREATE INDEX intents_manifest ON intents (manifest_id);
CREATE INDEX intents_deadline ON intents (deadline);
CREATE INDEX intents_tags ON intents (repo_id) WHERE tags IS NOT NULL;

CREATE TABLE uploads (
  id BLOB PRIMARY KEY,
  repo_id INTEGER NOT NULL REFERENCES repositories,
  principal TEXT NOT NULL,
  gen BLOB NOT NULL,
  epoch INTEGER NOT NULL,  -- in which its generation was begun
  first_lease INTEGER NOT NULL DEFAULT 1,  -- of this generation
  lease INTEGER NOT NULL DEFAULT 0,
  multipart_id TEXT,
  part_size INTEGER,
  parts TEXT NOT NULL DEFAULT '[]',
  spec TEXT,
  off INTEGER NOT NULL DEFAULT 0,
  alg INTEGER NOT NULL,
  hash BLOB NOT NULL DEFAULT x'',
  tails TEXT NOT NULL DEFAULT '[]',
  plan_digest BLOB,  -- set: the upload is closing and can only be closed that way
  plan_form INTEGER,  -- 0: the data is stored already, only a link is written
  plan_tail INTEGER,
  plan_size INTEGER,
  lock_token BLOB,
  lock_until INTEGER,
  expiry INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_principal ON uploads (principal);
CREATE INDEX uploads_expires ON uploads (expires_at);
CREATE INDEX uploads_gen ON uploads (gen);

-- Append-only; repeats are allowed.
CREATE TABLE gc_queue (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  due INTEGER NOT NULL,
  kind TEXT NOT NULL,  -- m manifest, x purge of a manifest, l link, b blob
  ref INTEGER NOT NULL
) STRICT;
CREATE INDEX gc_queue_due ON gc_queue (kind, due);

CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  due INTEGER NOT NULL,
  steps TEXT NOT NULL,  -- '+key' put empty, '-key' delete, '!key id' abort a multipart upload; in order
  lane TEXT,  -- one tag; its rows run strictly by id
  then_kind TEXT,
  then_ref INTEGER,  -- rows with evidence about a manifest name it here, without a kind
  tries INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_due ON outbox (due, id);
CREATE INDEX outbox_owed ON outbox (due, id) WHERE substr(steps, 1, 3) = '["+';
CREATE INDEX outbox_lane ON outbox (lane, id) WHERE lane IS NOT NULL;
CREATE INDEX outbox_then ON outbox (then_ref) WHERE then_ref IS NOT NULL;

-- Where a step is queued: JSON has no index of its own.
CREATE TABLE outbox_steps (
  step TEXT NOT NULL,
  outbox_id INTEGER NOT NULL,
  PRIMARY KEY (step, outbox_id)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER outbox_queued AFTER INSERT ON outbox BEGIN
  INSERT OR IGNORE INTO outbox_steps SELECT value, NEW.id FROM json_each(NEW.steps);
END;
CREATE TRIGGER outbox_done AFTER DELETE ON outbox BEGIN
  DELETE FROM outbox_steps WHERE (step, outbox_id) IN (SELECT value, OLD.id FROM json_each(OLD.steps));
END;

-- Parts of the bucket that are compared or verified, each under a lease.
CREATE TABLE shards (
  epoch INTEGER NOT NULL,
  job TEXT NOT NULL,
  phase INTEGER NOT NULL,  -- a lower one is done first
  shard TEXT NOT NULL,
  owner BLOB,
  until INTEGER,
  done INTEGER NOT NULL DEFAULT 0,
  -- Of a verification:
  planned INTEGER,
  begun INTEGER,
  findings INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (epoch, job, shard)
) STRICT, WITHOUT ROWID;

-- Rows whose objects a walk found to be missing. Too many stop it.
CREATE TABLE losses (
  epoch INTEGER NOT NULL,
  kind TEXT NOT NULL,
  total INTEGER NOT NULL,
  lost INTEGER NOT NULL DEFAULT 0,
  stopped INTEGER,  -- how many there would have been
  accepted INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (epoch, kind)
) STRICT, WITHOUT ROWID;

-- Objects that no row names, and since when.
CREATE TABLE orphans (
  key TEXT PRIMARY KEY,
  first_seen INTEGER NOT NULL,
  last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
