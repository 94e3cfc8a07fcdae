-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT extract(epoch FROM paused_until - clock_timestamp())::float8, coalesce(scarce_until > clock_timestamp(), false)
FROM upstreams
WHERE name = $1
