-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- When an upstream said what a tag is. Without a row, nobody knows.
CREATE TABLE mirror_tags (
  repo_id INTEGER NOT NULL REFERENCES repositories,
  name TEXT NOT NULL,
  checked_at INTEGER NOT NULL,
  PRIMARY KEY (repo_id, name)
) STRICT, WITHOUT ROWID;

-- Who is fetching what, and how far. A lease, to spare the upstream: two that fetch the same do no harm.
CREATE TABLE fetches (
  what TEXT PRIMARY KEY,
  owner BLOB NOT NULL,
  until INTEGER NOT NULL,
  done INTEGER NOT NULL,
  total INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What upstreams said about how often they may be asked.
CREATE TABLE upstreams (
  name TEXT PRIMARY KEY,
  paused_until INTEGER,
  scarce_until INTEGER
) STRICT, WITHOUT ROWID;
