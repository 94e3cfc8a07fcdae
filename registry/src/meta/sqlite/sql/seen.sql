-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest, now - seen_at
FROM clock, mirror_seen
WHERE repository = ?1
  AND tag = ?2
