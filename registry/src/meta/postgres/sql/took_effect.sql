-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Whether the manifest lives, and each of these tags names it or something newer, or was deleted since. One that
-- went with the manifest that it named was not deleted itself. An immutable tag that names something else was never
-- ours; of a promotion the row is needed, too.
SELECT EXISTS (
  SELECT FROM repositories r
  JOIN manifests m ON m.repo_id = r.id AND m.digest = $2 AND m.state = 1  -- live
  WHERE r.name = $1
    AND ($7::uuid IS NULL OR EXISTS (SELECT FROM promotions p WHERE p.gen = $7))
    AND NOT EXISTS (
      SELECT FROM unnest($4::text[], $5::bigint[]) AS ours (name, seq)
      LEFT JOIN tags t ON t.repo_id = r.id AND t.name = ours.name AND (t.epoch, t.seq) >= ($3, ours.seq)
      LEFT JOIN manifests named ON named.id = t.manifest_id AND (t.trashed_until IS NULL OR named.state = 1)
      WHERE named.id IS NULL
         OR ours.name = ANY ($6) AND named.digest <> m.digest
    )
)
