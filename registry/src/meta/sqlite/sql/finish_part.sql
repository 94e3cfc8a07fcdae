-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET done = 1,
  until = (SELECT now FROM clock),
  findings = ?4
WHERE epoch = 0
  AND job = ?1
  AND shard = ?2
  AND owner = ?3
  AND NOT done
RETURNING begun
