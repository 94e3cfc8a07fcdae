-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO manifest_blobs (manifest_id, link_id)
SELECT DISTINCT ?1, l.id
FROM json_each(?3) wanted
CROSS JOIN repo_blobs l ON l.repo_id = ?2 AND l.digest = unhex(wanted.value)
WHERE true
ON CONFLICT DO NOTHING  -- an earlier push of it
