-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- It goes on holding links and children.
UPDATE manifests
SET state = 2,
    trashed_until = clock_timestamp() + make_interval(secs => $2)
WHERE id = $1
