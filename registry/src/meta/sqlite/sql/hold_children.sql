-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO manifest_children (parent_id, repo_id, child)
SELECT DISTINCT ?1, ?2, unhex(wanted.value)
FROM json_each(?3) wanted
WHERE true
ON CONFLICT DO NOTHING  -- an earlier push of it
