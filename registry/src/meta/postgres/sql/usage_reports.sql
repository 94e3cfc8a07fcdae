-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT remote, extract(epoch FROM clock_timestamp() - reported_at)::float8, digests, names
FROM usage_reports
ORDER BY remote
