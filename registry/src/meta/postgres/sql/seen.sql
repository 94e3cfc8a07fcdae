-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest, extract(epoch FROM clock_timestamp() - seen_at)::float8
FROM mirror_seen
WHERE repository = $1
  AND tag = $2
