-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The trusted check. Shared, so that a walk that ends waits for collectors, and they for it.
SELECT epoch, epoch_gen
FROM meta
WHERE fence = pg_postmaster_start_time()
  AND reconciled = epoch
FOR SHARE
