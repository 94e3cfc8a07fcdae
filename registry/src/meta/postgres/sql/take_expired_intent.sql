-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM intents
WHERE id = $1
  AND deadline < statement_timestamp()
RETURNING id
