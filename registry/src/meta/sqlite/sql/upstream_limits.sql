-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT paused_until - now, coalesce(scarce_until > now, 0)
FROM clock, upstreams
WHERE name = ?1
