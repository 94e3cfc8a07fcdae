-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Of epochs that are over.
WITH shards AS (
  DELETE FROM shards WHERE job = 'walk' AND epoch < $1
)
DELETE FROM losses WHERE epoch < $1
