-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What policies are decided by: what was pulled, promoted, is run elsewhere, and what earlier runs came to.

-- The last day on which a manifest was pulled: days since 1970, by the database's clock.
CREATE TABLE pulls (
  manifest_id INTEGER PRIMARY KEY REFERENCES manifests ON DELETE CASCADE,
  day INTEGER NOT NULL
) STRICT;

-- Processes whose last pulls may not be in the record, and the newest day they may lack.
CREATE TABLE pull_writers (
  incarnation BLOB PRIMARY KEY,
  day INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A registry that is older than the record lacks all pulls before it.
INSERT INTO pull_writers SELECT randomblob(16), unixepoch() / 86400 WHERE EXISTS (SELECT 1 FROM meta);

-- What another cluster runs, as it said last.
CREATE TABLE usage_reports (
  remote TEXT PRIMARY KEY,
  reported_at INTEGER NOT NULL,
  digests TEXT NOT NULL,
  names TEXT NOT NULL  -- references that are not resolved to digests
) STRICT, WITHOUT ROWID;

ALTER TABLE intents ADD COLUMN ledger TEXT;

-- Ends of promotions. One that took effect has a record in the bucket, named by its version and generation.
CREATE TABLE promotions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL,
  source_repo TEXT NOT NULL,
  source_tag TEXT,
  target_repo TEXT NOT NULL,
  target_tag TEXT,
  policy TEXT NOT NULL,
  outcome TEXT NOT NULL,
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  epoch INTEGER,
  seq INTEGER,
  gen BLOB,
  evidence TEXT NOT NULL,
  CHECK ((gen IS NULL) = (seq IS NULL) AND (gen IS NULL) = (epoch IS NULL))
) STRICT;
CREATE INDEX promotions_source ON promotions (source_repo, digest);
CREATE INDEX promotions_target ON promotions (target_repo, digest);
CREATE INDEX promotions_newest ON promotions (at, id);
CREATE UNIQUE INDEX promotions_gen ON promotions (gen) WHERE gen IS NOT NULL;

-- Artifacts that wait for their promotion.
CREATE TABLE promotion_candidates (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  policy TEXT NOT NULL,
  repo_id INTEGER NOT NULL REFERENCES repositories,
  tag TEXT NOT NULL,  -- empty: asked for by digest
  request TEXT NOT NULL DEFAULT '',  -- what was asked for; empty: it is automatic
  digest BLOB NOT NULL,
  hash TEXT NOT NULL,  -- of the policy that it waits for
  since INTEGER NOT NULL,
  due INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0,
  UNIQUE (repo_id, tag, policy, request)
) STRICT;
CREATE INDEX promotion_candidates_due ON promotion_candidates (due, id);
CREATE INDEX promotion_candidates_request ON promotion_candidates (request) WHERE request <> '';

-- Runs of jobs, as their reports in the bucket tell.
CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  gen BLOB NOT NULL UNIQUE,
  outcome TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  summary TEXT NOT NULL,
  rules BLOB  -- hash of the rules that a completed plan was made by
) STRICT;
CREATE INDEX runs_newest ON runs (kind, name, gen DESC);

-- What can be restored.
CREATE INDEX manifests_trash ON manifests (repo_id, digest) WHERE state = 2;

-- Up to when turns to ask an upstream are taken.
ALTER TABLE upstreams ADD COLUMN turns_until INTEGER;

-- A page of referrers is read in its order.
DROP INDEX manifests_subject;
CREATE INDEX manifests_subject ON manifests (repo_id, subject, gen) WHERE subject IS NOT NULL;
