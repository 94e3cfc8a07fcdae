-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Takes NO KEY UPDATE: waits for a sweeper, not for pushers.
UPDATE manifests
SET touched = clock_timestamp()
WHERE id = $1
  AND state = 1
  AND touched < clock_timestamp() - make_interval(secs => $2)  -- one write per lease, however many ask
