-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Whether a push is under way that was placed below the tombstone: its record would be the highest without it.
SELECT EXISTS (
  SELECT 1
  FROM intents i
  JOIN json_each(i.tags)
  WHERE i.repo_id = ?1
    AND i.tags IS NOT NULL
    AND json_each.value ->> 'name' = ?2
    AND (i.epoch, json_each.value ->> 'seq') < (?3, ?4)
)
