-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE losses
SET lost = lost + $3
WHERE epoch = $1
  AND kind = $2
RETURNING lost, total, accepted
