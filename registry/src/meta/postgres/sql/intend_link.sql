-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO intents (epoch, deadline, kind, repo_id, gen, keys)
VALUES ($1, clock_timestamp() + make_interval(secs => $5), 'l', $2, $3, $4)
RETURNING id
