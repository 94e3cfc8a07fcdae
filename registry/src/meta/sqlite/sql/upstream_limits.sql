-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT paused_until - now, scarce_until - now, turns_until - now
FROM clock, upstreams
WHERE name = ?1
