-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Pins of the same manifest may go on; its deletion and its other publishers wait.
SELECT state, gen
FROM manifests
WHERE id = $1
FOR NO KEY UPDATE
