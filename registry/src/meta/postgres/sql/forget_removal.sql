-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM outbox
WHERE id = $1
  AND steps = $2  -- in another incarnation somebody else's may have this number
RETURNING steps, then_kind::text AS then_kind, then_ref
