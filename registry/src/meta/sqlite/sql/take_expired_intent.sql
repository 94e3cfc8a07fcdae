-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM intents
WHERE id = ?1
  AND deadline < (SELECT now FROM clock)
RETURNING id
