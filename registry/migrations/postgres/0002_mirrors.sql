-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- When an upstream said what a tag is. Without a row, nobody knows.
CREATE TABLE mirror_tags (
  repo_id int NOT NULL REFERENCES repositories,
  name text COLLATE "C" NOT NULL,
  checked_at timestamptz NOT NULL,
  PRIMARY KEY (repo_id, name)
) WITH (fillfactor = 80);

-- Who is fetching what, and how far. A lease, to spare the upstream: two that fetch the same do no harm.
CREATE TABLE fetches (
  what text COLLATE "C" PRIMARY KEY,
  owner uuid NOT NULL,
  until timestamptz NOT NULL,
  done bigint NOT NULL,
  total bigint NOT NULL
) WITH (fillfactor = 50);

-- What upstreams said about how often they may be asked.
CREATE TABLE upstreams (
  name text COLLATE "C" PRIMARY KEY,
  paused_until timestamptz,
  scarce_until timestamptz
);
