-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM runs
WHERE id IN (
  SELECT id
  FROM (SELECT id, row_number() OVER (PARTITION BY kind, name ORDER BY gen DESC) AS place FROM runs)
  WHERE place > ?1
  LIMIT ?2
)
RETURNING kind, name, gen, outcome
