-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- The usual publish as one statement, which is its own transaction: the manifest is pending and its tags are new.
-- All of it is done, or none where that is not so. A tag that appears meanwhile violates the key, and none is done.
WITH ours AS (
  SELECT i.id
  FROM meta, intents i
  WHERE meta.epoch = $2
    AND meta.fence = pg_postmaster_start_time()
    AND i.id = $1  -- else reaped: whoever did it has decided about the keys
    AND i.epoch = $2
    AND NOT EXISTS (SELECT FROM tags WHERE repo_id = $3 AND name = ANY ($6::text[]))
    AND EXISTS (SELECT FROM manifests WHERE id = $4 AND state = 0)
  FOR UPDATE OF i
), enlivened AS (
  UPDATE manifests m
  SET state = 1,
      gen = $5,
      pending_until = NULL,
      touched = clock_timestamp(),
      pushed_at = clock_timestamp()
  FROM ours
  WHERE m.id = $4
    AND m.state = 0  -- looked at again once it is ours
  RETURNING m.id
), taken AS (
  DELETE FROM intents i
  USING enlivened
  WHERE i.id = $1
), named AS (
  INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)
  SELECT $3, tag.name, m.id, $2, tag.seq, tag.gen, timestamptz 'epoch' + tag.milliseconds * interval '1 millisecond'
  FROM enlivened m, unnest($6::text[], $7::bigint[], $8::uuid[], $9::bigint[]) AS tag (name, seq, gen, milliseconds)
), candidate AS (
  INSERT INTO gc_queue (due, kind, ref)
  SELECT clock_timestamp() + make_interval(secs => $10), 'm', id
  FROM enlivened
)
SELECT id FROM enlivened
