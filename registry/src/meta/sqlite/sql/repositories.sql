-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Always at least one row: whether the epoch is ours is part of the answer.
SELECT meta.epoch = ?3 AND meta.fence IS ?4 AS ours,
  r.id IS NOT NULL AS found,
  r.name
FROM meta
LEFT JOIN repositories r ON r.name > ?1
ORDER BY r.name
LIMIT ?2
