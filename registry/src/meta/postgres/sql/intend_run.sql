-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO intents (epoch, deadline, kind, gen, keys)
VALUES ($1, clock_timestamp() + make_interval(secs => $2), 'r', $3, ARRAY[$4])
RETURNING id
