-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What pushes that are under way will write, that set this tag.
SELECT i.keys
FROM intents i
WHERE i.repo_id = ?1
  AND i.tags IS NOT NULL
  AND EXISTS (SELECT 1 FROM json_each(i.tags) WHERE value ->> 'name' = ?2)
