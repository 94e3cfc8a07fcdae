-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE shards
SET owner = NULL,
    until = clock_timestamp()
WHERE epoch = 0
  AND job = $1
  AND owner = ANY ($2)
  AND NOT done
