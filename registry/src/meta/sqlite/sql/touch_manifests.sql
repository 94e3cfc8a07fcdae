-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE manifests
SET touched = (SELECT now FROM clock)
WHERE id IN (SELECT value FROM json_each(?1))
