-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- One row a kind: how many rows it had when the walk began. Whoever finds them has come second.
INSERT INTO losses (epoch, kind, total)
SELECT ?1, ?2, ?3
WHERE true
ON CONFLICT DO NOTHING
