-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Whether a push is under way that was placed below the tombstone: its record would be the highest without it.
SELECT EXISTS (
  SELECT
  FROM intents i
  CROSS JOIN LATERAL jsonb_to_recordset(i.tags) AS tag (name text, seq bigint)
  WHERE i.repo_id = $1
    AND i.tags IS NOT NULL
    AND tag.name = $2
    AND (i.epoch, tag.seq) < ($3, $4)
)
