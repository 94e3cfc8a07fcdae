-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO promotions (digest, source_repo, source_tag, target_repo, target_tag, policy, outcome, actor, at, evidence)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, now, ?9
FROM clock
