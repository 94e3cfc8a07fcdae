-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET plan_digest = ?2,
    plan_form = ?3,
    plan_tail = ?4,
    plan_size = coalesce(?5, off)
WHERE gen = ?1
  -- Only a link was seen before, and now the data.
  AND (plan_digest IS NULL OR plan_digest = ?2 AND plan_form = 0)
