-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

DELETE FROM outbox
WHERE id = ANY ($1)
  AND ($2::text[] IS NULL OR steps = $2)
RETURNING steps, then_kind::text AS then_kind, then_ref
