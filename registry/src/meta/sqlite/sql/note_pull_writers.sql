-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- A list of [incarnation, day].
INSERT INTO pull_writers (incarnation, day)
SELECT unhex(told.value ->> 0), told.value ->> 1
FROM json_each(?1) AS told
WHERE true
ON CONFLICT (incarnation) DO UPDATE SET day = excluded.day
WHERE pull_writers.day < excluded.day
