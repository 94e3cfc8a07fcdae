-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO mirror_tags (repo_id, name, checked_at)
SELECT r.id, ?2, now - ?3
FROM clock, repositories r
WHERE r.name = ?1  -- else nothing of it is stored, and there is nothing to know
ON CONFLICT (repo_id, name) DO UPDATE
SET checked_at = max(checked_at, excluded.checked_at)  -- what is known already counts
