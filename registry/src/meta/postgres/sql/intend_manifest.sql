-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO intents (epoch, deadline, kind, manifest_id, repo_id, gen, tags, keys, ledger)
VALUES ($1, clock_timestamp() + make_interval(secs => $7), 'm', $2, $3, $4, $5, $6, $8)
RETURNING id
