-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What an upstream says that a tag is, and since when, where a mirror holds back what is new. The repository need not
-- exist: what is held back is not stored.
CREATE TABLE mirror_seen (
  repository TEXT NOT NULL,
  tag TEXT NOT NULL,
  digest BLOB NOT NULL,
  seen_at INTEGER NOT NULL,
  PRIMARY KEY (repository, tag)
) STRICT, WITHOUT ROWID;
