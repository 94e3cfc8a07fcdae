-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

SELECT id, digest, gen AS generation, form, tail, size
FROM blobs
WHERE digest = ANY ($1)
