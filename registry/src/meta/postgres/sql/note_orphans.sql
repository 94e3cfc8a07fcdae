-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO orphans AS o (key, first_seen, last_seen)
SELECT DISTINCT key, clock_timestamp(), clock_timestamp()
FROM unnest($1::text[]) AS key
ORDER BY key  -- two verifications meet in one order
ON CONFLICT (key) DO UPDATE
SET last_seen = excluded.last_seen
RETURNING o.key, o.first_seen <= clock_timestamp() - make_interval(secs => $2) AS old
