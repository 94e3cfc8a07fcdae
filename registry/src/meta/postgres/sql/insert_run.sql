-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO runs (kind, name, gen, outcome, started_at, ended_at, summary, rules)
SELECT $1, $2, $3, $4,
       timestamptz 'epoch' + $5 * interval '1 millisecond',
       timestamptz 'epoch' + $6 * interval '1 millisecond',
       $7::jsonb, $8
WHERE NOT EXISTS (SELECT FROM intents WHERE gen = $3 AND kind = 'r')  -- its writer is under way
ON CONFLICT (gen) DO NOTHING
