-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What policies are decided by: what was pulled, promoted, is run elsewhere, and what earlier runs came to.

-- The last day on which a manifest was pulled, by the database's clock.
CREATE TABLE pulls (
  manifest_id  bigint PRIMARY KEY REFERENCES manifests ON DELETE CASCADE,
  day          date NOT NULL
) WITH (fillfactor = 70);

-- Processes whose last pulls may not be in the record, and the newest day they may lack.
CREATE TABLE pull_writers (
  incarnation  uuid PRIMARY KEY,
  day          date NOT NULL
);

-- A registry that is older than the record lacks all pulls before it.
INSERT INTO pull_writers SELECT gen_random_uuid(), current_date WHERE EXISTS (SELECT FROM meta);

-- What another cluster runs, as it said last.
CREATE TABLE usage_reports (
  remote       text COLLATE "C" PRIMARY KEY,
  reported_at  timestamptz NOT NULL,
  digests      bytea[] NOT NULL,
  names        text[] NOT NULL  -- references that are not resolved to digests
);

-- Ends of promotions. One that took effect has a record in the bucket, named by its version and generation.
CREATE TABLE promotions (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest       bytea NOT NULL,
  source_repo  text COLLATE "C" NOT NULL,
  source_tag   text COLLATE "C",
  target_repo  text COLLATE "C" NOT NULL,
  target_tag   text COLLATE "C",
  policy       text COLLATE "C" NOT NULL,
  outcome      text NOT NULL,
  actor        text NOT NULL,
  at           timestamptz NOT NULL,
  epoch        bigint,
  seq          bigint,
  gen          uuid,
  evidence     jsonb NOT NULL,
  CHECK ((gen IS NULL) = (seq IS NULL) AND (gen IS NULL) = (epoch IS NULL))
);
CREATE INDEX promotions_source ON promotions (source_repo, digest);
CREATE INDEX promotions_target ON promotions (target_repo, digest);
CREATE INDEX promotions_newest ON promotions (at, id);
CREATE UNIQUE INDEX promotions_gen ON promotions (gen) WHERE gen IS NOT NULL;

-- Artifacts that wait for their promotion.
CREATE TABLE promotion_candidates (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  policy   text COLLATE "C" NOT NULL,
  repo_id  int NOT NULL REFERENCES repositories,
  tag      text COLLATE "C" NOT NULL,  -- empty: asked for by digest
  request  text COLLATE "C" NOT NULL DEFAULT '',  -- what was asked for; empty: it is automatic
  digest   bytea NOT NULL,
  hash     text NOT NULL,  -- of the policy that it waits for
  since    timestamptz NOT NULL DEFAULT clock_timestamp(),
  due      timestamptz NOT NULL,
  tries    int NOT NULL DEFAULT 0,
  UNIQUE (repo_id, tag, policy, request)
) WITH (fillfactor = 70);
CREATE INDEX promotion_candidates_due ON promotion_candidates (due, id);
CREATE INDEX promotion_candidates_request ON promotion_candidates (request) WHERE request <> '';

-- Runs of jobs, as their reports in the bucket tell.
CREATE TABLE runs (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind        text COLLATE "C" NOT NULL,
  name        text COLLATE "C" NOT NULL,
  gen         uuid NOT NULL UNIQUE,
  outcome     text NOT NULL,
  started_at  timestamptz NOT NULL,
  ended_at    timestamptz NOT NULL,
  summary     jsonb NOT NULL,
  rules       bytea  -- hash of the rules that a completed plan was made by
);
CREATE INDEX runs_newest ON runs (kind, name, gen DESC);

-- What can be restored.
CREATE INDEX manifests_trash ON manifests (repo_id, digest) WHERE state = 2;

-- Up to when turns to ask an upstream are taken. A row changes with each request to it.
ALTER TABLE upstreams ADD COLUMN turns_until timestamptz;
ALTER TABLE upstreams SET (fillfactor = 50);

-- A page of referrers is read in its order.
DROP INDEX manifests_subject;
CREATE INDEX manifests_subject ON manifests (repo_id, subject, gen) WHERE subject IS NOT NULL;
