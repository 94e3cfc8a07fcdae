-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Who holds one has taken it again after our lease, and carries it out once more; or it is its request.
DELETE FROM outbox
WHERE id = ANY (ARRAY(
  SELECT id
  FROM outbox
  WHERE id = ANY ($1)
  FOR UPDATE SKIP LOCKED
))
RETURNING steps, then_kind::text AS then_kind, then_ref
