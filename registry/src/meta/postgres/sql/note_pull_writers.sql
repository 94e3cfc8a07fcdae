-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO pull_writers (incarnation, day)
SELECT told.incarnation, DATE '1970-01-01' + told.day
FROM unnest($1::uuid[], $2::int[]) AS told (incarnation, day)
ORDER BY told.incarnation  -- so processes do not wait for each other crosswise
ON CONFLICT (incarnation) DO UPDATE SET day = EXCLUDED.day
WHERE pull_writers.day < EXCLUDED.day
