-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

UPDATE uploads
SET gen = $2,
    epoch = coalesce((SELECT epoch FROM meta), 0),
    multipart_id = NULL,
    part_size = NULL,
    parts = '[]',
    spec = NULL,
    off = 0,
    hash = '',
    tails = '{}',
    tail_sizes = '{}',
    spent = '{}',
    expires_at = clock_timestamp() + expiry
WHERE id = $1
