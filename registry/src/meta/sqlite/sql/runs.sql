-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT kind, name, gen, outcome, started_at / 1000 AS started, ended_at / 1000 AS ended, summary, rules
FROM runs
WHERE kind = ?1
  AND name = ?2
ORDER BY gen DESC
LIMIT ?3
