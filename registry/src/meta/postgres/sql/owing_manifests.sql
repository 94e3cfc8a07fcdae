-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The bucket still lacks tombstones or the marker: the record must not go before.
SELECT DISTINCT then_ref
FROM outbox
WHERE then_ref = ANY ($1)
  AND then_kind IS NULL
