-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Held to the end: the epoch cannot become walked, or another, in the middle of a comparison.
SELECT epoch = $1 AND fence = pg_postmaster_start_time() AS ours,
       reconciled = epoch AS walked
FROM meta
FOR SHARE
