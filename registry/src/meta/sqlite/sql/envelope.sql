-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT registry, schema, epoch,
  fence IS ?1 AS ours,
  reconciled = epoch AS walked
FROM meta
