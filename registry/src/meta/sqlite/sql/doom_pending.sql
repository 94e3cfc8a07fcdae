-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE manifests
SET state = 3
WHERE id = ?1
  AND state = 0
  AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.manifest_id = ?1)  -- nobody else is at it
