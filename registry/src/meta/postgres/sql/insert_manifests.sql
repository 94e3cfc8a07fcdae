-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

INSERT INTO manifests (repo_id, digest, state, gen, trashed_until, pushed_at, media_type, artifact_type, subject,
                       annotations, size, body)
SELECT $1, digest, CASE WHEN trashed IS NULL THEN 1 ELSE 2 END, gen,
       clock_timestamp() + make_interval(secs => trashed),
       timestamptz 'epoch' + pushed * interval '1 millisecond',
       media_type, artifact_type, subject, annotations::jsonb, size, body
FROM unnest($2::bytea[], $3::uuid[], $4::float8[], $5::bigint[], $6::text[], $7::text[], $8::bytea[], $9::text[],
            $10::int[], $11::bytea[])
  WITH ORDINALITY
  AS found (digest, gen, trashed, pushed, media_type, artifact_type, subject, annotations, size, body, place)
ORDER BY place  -- later pushes have higher ids
ON CONFLICT DO NOTHING  -- another lives, or it is known
RETURNING id, gen
