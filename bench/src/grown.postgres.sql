-- SPDX-FileCopyrightText: The Stowage authors
-- SPDX-License-Identifier: EUPL-1.2

-- Images of a registry that has grown, as rows: they have no objects, so only what the database answers can be
-- asked for. bench.manifests is a multiple of bench.repositories.
--
-- Each manifest has a tag, a config and a layer of its own, and a layer that it shares with its repository.
-- Digests ascend with the rows, evenly over all there are: the indexes are as large as any, and quickly filled.

-- What refers to what is right by construction: to check it takes longer than to write it.
SET session_replication_role = replica;

CREATE FUNCTION pg_temp.manifests() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT current_setting('bench.manifests')::bigint $$;
CREATE FUNCTION pg_temp.repositories() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT current_setting('bench.repositories')::bigint $$;
-- Of each repository.
CREATE FUNCTION pg_temp.images() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT pg_temp.manifests() / pg_temp.repositories() $$;

CREATE FUNCTION pg_temp.digest_of(number bigint, total bigint) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$
  SELECT '\x01'::bytea
    || int8send(number * (9223372036854775807 / total))
    || substring(sha256(int8send(number) || int8send(total)) FROM 1 FOR 24)
$$;
CREATE FUNCTION pg_temp.generation_of(number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT lpad(to_hex(number + 1), 32, '0')::uuid $$;

INSERT INTO repositories (id, name) OVERRIDING SYSTEM VALUE
SELECT r + 1, 'bench/grown-' || r FROM generate_series(0, pg_temp.repositories() - 1) r;

-- Blobs of a repository follow one another: the shared layer, then config and layer of each image.
INSERT INTO blobs (id, digest, size, gen, form) OVERRIDING SYSTEM VALUE
SELECT b + 1, pg_temp.digest_of(b, total), 4096, pg_temp.generation_of(b), 1
FROM (SELECT pg_temp.repositories() * (2 * pg_temp.images() + 1) AS total) t
CROSS JOIN LATERAL generate_series(0, total - 1) b;

INSERT INTO repo_blobs (id, repo_id, digest, blob_id, gen) OVERRIDING SYSTEM VALUE
SELECT b.id, (b.id - 1) / (2 * pg_temp.images() + 1) + 1, b.digest, b.id, b.gen
FROM blobs b
ORDER BY b.id;

INSERT INTO manifests (id, repo_id, digest, state, gen, media_type, size, body) OVERRIDING SYSTEM VALUE
SELECT n + 1,
       n / pg_temp.images() + 1,
       pg_temp.digest_of(n, pg_temp.manifests()),
       1,
       pg_temp.generation_of(n),
       'application/vnd.oci.image.manifest.v1+json',
       length(body),
       body
FROM generate_series(0, pg_temp.manifests() - 1) n
CROSS JOIN LATERAL (
  SELECT convert_to(
    '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"number":"'
      || lpad(n::text, 400, '0') || '"}}',
    'UTF8'
  ) AS body
) b;

INSERT INTO manifest_blobs (manifest_id, link_id)
SELECT n + 1, link
FROM generate_series(0, pg_temp.manifests() - 1) n
CROSS JOIN LATERAL (SELECT n / pg_temp.images() * (2 * pg_temp.images() + 1) + 1 AS shared) s
CROSS JOIN LATERAL (SELECT shared + 1 + 2 * (n % pg_temp.images()) AS own) o
CROSS JOIN LATERAL (VALUES (shared), (own), (own + 1)) l (link);

INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)
SELECT n / pg_temp.images() + 1,
       'v' || n % pg_temp.images(),
       n + 1,
       (SELECT epoch FROM meta),
       n + 1,
       pg_temp.generation_of(n),
       clock_timestamp()
FROM generate_series(0, pg_temp.manifests() - 1) n;

-- What comes now gets numbers of its own.
SELECT setval('versions', pg_temp.manifests());
SELECT setval(pg_get_serial_sequence('repositories', 'id'), (SELECT max(id) FROM repositories));
SELECT setval(pg_get_serial_sequence('blobs', 'id'), (SELECT max(id) FROM blobs));
SELECT setval(pg_get_serial_sequence('repo_blobs', 'id'), (SELECT max(id) FROM repo_blobs));
SELECT setval(pg_get_serial_sequence('manifests', 'id'), (SELECT max(id) FROM manifests));
