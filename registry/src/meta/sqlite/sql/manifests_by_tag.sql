-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- manifest_by_tag for many: a list of [repository, tag]. CROSS JOIN: in the order of the list.
SELECT wanted.key AS place, m.id, m.digest, m.media_type, m.size, m.gen,
  m.touched < (SELECT now FROM clock) - ?2 AS lease_is_old,
  m.body
FROM json_each(?1) AS wanted
CROSS JOIN repositories r ON r.name = wanted.value ->> 0
CROSS JOIN tags t ON t.repo_id = r.id AND t.name = wanted.value ->> 1
CROSS JOIN manifests m ON m.id = t.manifest_id
WHERE t.trashed_until IS NULL
  AND m.state = 1  -- live
