-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT extract(epoch FROM paused_until - clock_timestamp())::float8,
       extract(epoch FROM scarce_until - clock_timestamp())::float8,
       extract(epoch FROM turns_until - clock_timestamp())::float8
FROM upstreams
WHERE name = $1
