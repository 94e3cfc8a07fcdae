-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT registry,
       schema,
       epoch,
       fence = pg_postmaster_start_time() AS ours,  -- as a timestamp: its text depends on the session's time zone
       reconciled = epoch                 AS walked
FROM meta
