-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Out of the lock order, so without waiting: whoever holds such a row touches it, or deletes it, or is a
-- sweeper that still sees the tag where it was.
UPDATE manifests
SET touched = clock_timestamp()
WHERE id IN (SELECT id FROM manifests WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
