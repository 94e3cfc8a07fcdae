-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT digest,
       state,
       greatest(extract(epoch FROM trashed_until - clock_timestamp()), 0)::float8 AS wait
FROM manifests
WHERE id = $1
