-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET owner = NULL,
    until = NULL
WHERE epoch = $1
  AND job = 'walk'
  AND owner = ANY ($2)
  AND NOT done
