-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT DISTINCT s.step
FROM json_each(?1) wanted
CROSS JOIN outbox_steps s ON s.step = wanted.value
