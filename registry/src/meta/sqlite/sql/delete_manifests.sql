-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE manifests
SET state = 2, trashed_until = (SELECT now FROM clock) + ?2
WHERE id IN (SELECT value FROM json_each(?1))
