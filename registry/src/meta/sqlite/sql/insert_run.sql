-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO runs (kind, name, gen, outcome, started_at, ended_at, summary, rules)
SELECT ?1, ?2, ?3, ?4, ?5 * 1000, ?6 * 1000, ?7, ?8
WHERE NOT EXISTS (SELECT 1 FROM intents WHERE gen = ?3 AND kind = 'r')  -- its writer is under way
ON CONFLICT (gen) DO NOTHING
