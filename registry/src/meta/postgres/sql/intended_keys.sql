-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- What pushes that are under way will write, that set this tag.
SELECT i.keys
FROM intents i
WHERE i.repo_id = $1
  AND i.tags @> jsonb_build_array(jsonb_build_object('name', $2::text))
