-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO upstreams (name, paused_until, scarce_until)
SELECT ?1, now + ?2, now + ?3
FROM clock
WHERE true
ON CONFLICT (name) DO UPDATE
SET paused_until = coalesce(max(paused_until, excluded.paused_until), paused_until, excluded.paused_until),
  scarce_until = coalesce(excluded.scarce_until, scarce_until)
