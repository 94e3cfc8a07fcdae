-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE promotion_candidates
SET due = (SELECT now FROM clock) + ?2, tries = tries + 1
WHERE id = ?1
