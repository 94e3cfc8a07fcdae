-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET done = 1, until = NULL
WHERE epoch = ?1
  AND job = 'walk'
  AND shard = ?2
  AND owner = ?3
  AND NOT done
