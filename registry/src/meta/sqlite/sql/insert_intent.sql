-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO intents (epoch, deadline, kind, manifest_id, repo_id, gen, tags, keys, ledger)
SELECT ?1, now + ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
FROM clock
RETURNING id
