-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Whether the manifest lives, and each of these tags ([{name, seq}]) names it or something newer, or was deleted
-- since. One that went with the manifest that it named was not deleted itself. An immutable tag that names something
-- else was never ours; of a promotion the row is needed, too.
SELECT EXISTS (
  SELECT 1 FROM repositories r
  JOIN manifests m ON m.repo_id = r.id AND m.digest = ?2 AND m.state = 1  -- live
  WHERE r.name = ?1
    AND (?6 IS NULL OR EXISTS (SELECT 1 FROM promotions p WHERE p.gen = ?6))
    AND NOT EXISTS (
      SELECT 1 FROM json_each(?4) AS ours
      LEFT JOIN tags t ON t.repo_id = r.id AND t.name = ours.value ->> 'name'
        AND (t.epoch, t.seq) >= (?3, ours.value ->> 'seq')
      LEFT JOIN manifests named ON named.id = t.manifest_id AND (t.trashed_until IS NULL OR named.state = 1)
      WHERE named.id IS NULL
         OR ours.value ->> 'name' IN (SELECT value FROM json_each(?5)) AND named.digest <> m.digest
    )
)
