-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What an upstream says that a tag is, and since when, where a mirror holds back what is new. The repository need not
-- exist: what is held back is not stored.
CREATE TABLE mirror_seen (
  repository text COLLATE "C" NOT NULL,
  tag text COLLATE "C" NOT NULL,
  digest bytea NOT NULL,
  seen_at timestamptz NOT NULL,
  PRIMARY KEY (repository, tag)
);
