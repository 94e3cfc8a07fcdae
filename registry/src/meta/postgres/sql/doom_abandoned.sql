-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Its push is over: a push of this epoch has an intent.
WITH doomed AS (
  UPDATE manifests m
  SET state = 3,
      pending_until = NULL
  WHERE m.state = 0
    AND NOT EXISTS (SELECT FROM intents i WHERE i.manifest_id = m.id)
  RETURNING m.id
)
INSERT INTO outbox (due, steps, then_kind, then_ref)
SELECT clock_timestamp(), '{}', 'm', id
FROM doomed
