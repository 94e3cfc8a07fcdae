-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE meta
SET reconciled = epoch,
    walked_at = clock_timestamp()
WHERE epoch = $1
  AND fence = pg_postmaster_start_time()
