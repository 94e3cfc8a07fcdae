-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO intents (epoch, deadline, kind, repo_id, gen, keys)
VALUES ($1, clock_timestamp() + interval '10 minutes', 'l', $2, $3, $4)
RETURNING id
