-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at, trashed_until, prev_epoch, prev_seq, prev_gen)
SELECT $1, name, manifest, epoch, seq, gen, timestamptz 'epoch' + pushed * interval '1 millisecond',
       CASE WHEN prev_gen IS NOT NULL THEN clock_timestamp() + make_interval(secs => $11) END,
       prev_epoch, prev_seq, prev_gen
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::uuid[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::uuid[])
  AS found (name, manifest, epoch, seq, gen, pushed, prev_epoch, prev_seq, prev_gen)
ORDER BY name  -- the lock order
ON CONFLICT (repo_id, name) DO NOTHING
RETURNING name
