// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database that all share, and its disasters: what it was some time ago, or nothing.
//!
//! PostgreSQL: snapshots are schemas beside the tables. A disaster cuts all connections, puts an older state in
//! the tables' place with the sequence lowered, and makes the incarnation another; clients go on.
//! SQLite: snapshots are files. A disaster ends the process: everything it did is abandoned, and the next one
//! opens an older file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use stowage_oci::Digest;
use stowage_registry::key::{Form, Generation, Key};
use stowage_registry::meta::MetaStore;
use stowage_registry::meta::postgres::PostgresStore;
use stowage_registry::meta::sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::sabotage;
use super::times::Times;
use super::wire::Rewriter;
use crate::support::postgres::database;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Postgres,
    Sqlite,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disaster {
    /// The last moments are lost.
    Failover,
    /// Seconds are lost.
    Deep,
    /// Everything is lost.
    Rebuild,
}

/// How far snapshots reach back.
const KEPT: usize = 12;
/// How far the sequence falls behind what it gave.
const BEHIND: i64 = 20;

/// The database, its snapshots and who is connected.
pub(super) struct Database {
    backend: Backend,
    snapshots: Mutex<VecDeque<(Instant, String)>>,
}

enum Backend {
    Postgres {
        admin: Mutex<PgConnection>,
        url: String,
        role: String,
        _wire: Option<Rewriter>,
    },
    /// Each process has a folder of its own: what the last one had begun cannot touch the file of the next.
    Sqlite {
        root: TempDir,
        lives: AtomicUsize,
    },
}

impl Database {
    /// Without tables' contents. `sabotage` are statements run on it once; `rewrite` what a line changes in the
    /// statements of replicas (PostgreSQL only).
    pub(super) async fn new(
        kind: Kind,
        sabotage: &[&'static str],
        rewrite: Option<fn(&str) -> String>,
    ) -> Arc<Self> {
        let backend = match kind {
            Kind::Postgres => Backend::postgres(sabotage, rewrite).await,
            Kind::Sqlite => {
                assert!(rewrite.is_none(), "no line to rewrite");
                Backend::sqlite(sabotage).await
            }
        };
        Arc::new(Self { backend, snapshots: Mutex::default() })
    }

    /// Where the present process has its file.
    fn folder(&self) -> PathBuf {
        match &self.backend {
            Backend::Postgres { .. } => unreachable!("it has no file"),
            Backend::Sqlite { root, lives } => life(root.path(), lives.load(Ordering::SeqCst)),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.backend {
            Backend::Postgres { .. } => Kind::Postgres,
            Backend::Sqlite { .. } => Kind::Sqlite,
        }
    }

    /// One store a replica. In SQLite all replicas are the same process.
    pub(super) async fn stores(&self, replicas: usize, times: &Times) -> Vec<Arc<dyn MetaStore>> {
        let mut stores: Vec<Arc<dyn MetaStore>> = Vec::with_capacity(replicas);
        match &self.backend {
            Backend::Postgres { url, .. } => {
                for _ in 0..replicas {
                    stores.push(Arc::new(PostgresStore::connect(&times.postgres(url)).await.unwrap()));
                }
            }
            Backend::Sqlite { .. } => {
                let store = SqliteStore::open(&self.folder(), times.sqlite()).await.unwrap();
                let store: Arc<dyn MetaStore> = Arc::new(store);
                stores.resize(replicas, store);
            }
        }
        stores
    }

    /// Keeps the present state.
    pub(super) async fn keep(&self) {
        let taken = Instant::now();
        let name = format!("kept_{}", Uuid::new_v4().simple());
        let mut snapshots = self.snapshots.lock().await;
        let old = if snapshots.len() == KEPT { snapshots.pop_front() } else { None };
        match &self.backend {
            Backend::Postgres { admin, .. } => {
                let mut admin = admin.lock().await;
                keep_tables(&mut admin, &name, old.as_ref().map(|(_, name)| name.as_str())).await;
            }
            Backend::Sqlite { root, .. } => {
                let mut connection = sqlite(&self.folder()).connect().await.unwrap();
                let target = root.path().join(&name).display().to_string();
                sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                if let Some((_, old)) = old {
                    std::fs::remove_file(root.path().join(old)).unwrap();
                }
            }
        }
        snapshots.push_back((taken, name));
    }

    /// Everybody is cut off, and the database is what it was. `epochs_return`: the new incarnation is given the
    /// number of the lost one. With SQLite nobody may hold a store any more.
    pub(super) async fn strike(&self, disaster: Disaster, registry: Uuid, epochs_return: bool) {
        let mut snapshots = self.snapshots.lock().await;
        let name = match disaster {
            Disaster::Failover => snapshots.back().map(|(_, name)| name.clone()),
            Disaster::Deep => snapshots.front().map(|(_, name)| name.clone()),
            Disaster::Rebuild => None,
        };
        match &self.backend {
            Backend::Postgres { admin, role, .. } => {
                let mut admin = admin.lock().await;
                cut(&mut admin, role).await;
                restore_tables(&mut admin, name.as_deref(), registry).await;
                if epochs_return {
                    run(&mut admin, EPOCHS_RETURN).await;
                }
                run(&mut admin, &format!("ALTER ROLE {role} LOGIN")).await;
            }
            Backend::Sqlite { root, lives } => {
                let last = self.folder();
                lives.fetch_add(1, Ordering::SeqCst);
                let kept = name.as_ref().map(|name| root.path().join(name));
                restore_file(&last, &self.folder(), kept.as_deref(), registry).await;
                if epochs_return {
                    let mut connection = sqlite(&self.folder()).connect().await.unwrap();
                    connection.execute(EPOCHS_RETURN).await.unwrap();
                    connection.close().await.unwrap();
                }
            }
        }
        // What was kept after that moment is of a history that is not.
        if let Some(name) = name {
            let index = snapshots.iter().position(|(_, other)| *other == name).expect("it is kept");
            let later: Vec<_> = snapshots.drain(index + 1..).collect();
            drop(snapshots);
            self.forget(later).await;
        }
    }

    async fn forget(&self, snapshots: Vec<(Instant, String)>) {
        for (_, name) in snapshots {
            match &self.backend {
                Backend::Postgres { admin, .. } => {
                    run(&mut *admin.lock().await, &format!("DROP SCHEMA {name} CASCADE")).await;
                }
                Backend::Sqlite { root, .. } => std::fs::remove_file(root.path().join(name)).unwrap(),
            }
        }
    }

    /// A number that a statement gives.
    pub(super) async fn count(&self, statement: &str) -> i64 {
        let statement = AssertSqlSafe(statement.to_owned());
        match &self.backend {
            Backend::Postgres { admin, .. } => {
                sqlx::query_scalar(statement).fetch_one(&mut *admin.lock().await).await.unwrap()
            }
            Backend::Sqlite { .. } => {
                let mut connection = sqlite(&self.folder()).connect().await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// The lines that the statements give.
    pub(super) async fn report(&self, statements: &[&'static str]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for statement in statements {
            let found: Vec<String> = match &self.backend {
                Backend::Postgres { admin, .. } => {
                    let statement =
                        statement.replace("|| steps", "|| steps::text").replace("|| kind", "|| kind::text");
                    let statement = AssertSqlSafe(statement);
                    sqlx::query_scalar(statement).fetch_all(&mut *admin.lock().await).await.unwrap()
                }
                Backend::Sqlite { .. } => {
                    let mut connection = sqlite(&self.folder()).connect().await.unwrap();
                    sqlx::query_scalar(*statement).fetch_all(&mut connection).await.unwrap()
                }
            };
            lines.extend(found);
        }
        lines
    }

    /// What its rows say.
    pub(super) async fn rows(&self) -> Rows {
        match &self.backend {
            Backend::Postgres { admin, .. } => {
                let mut admin = admin.lock().await;
                let outbox = "SELECT id, array_to_json(steps)::text FROM outbox ORDER BY id";
                rows_of_postgres(&mut admin, outbox).await
            }
            Backend::Sqlite { .. } => {
                let mut connection = sqlite(&self.folder()).connect().await.unwrap();
                rows_of_sqlite(&mut connection, "SELECT id, steps FROM outbox ORDER BY id").await
            }
        }
    }
}

impl Backend {
    async fn postgres(sabotage: &[&'static str], rewrite: Option<fn(&str) -> String>) -> Self {
        let url = database().await;
        let (server, folder) = url.split_once("?host=").expect("an address of ours");
        let name = server.rsplit('/').next().expect("it names a database");
        let role = format!("replicas_of_{name}");
        let mut admin: PgConnection =
            url.parse::<PgConnectOptions>().unwrap().disable_statement_logging().connect().await.unwrap();
        run(&mut admin, &format!("CREATE ROLE {role} SUPERUSER LOGIN")).await;
        for statement in sabotage::haste(Kind::Postgres).iter().chain(sabotage) {
            run(&mut admin, statement).await;
        }
        let (url, wire) = match rewrite {
            None => (url.replace("//postgres@", &format!("//{role}@")), None),
            Some(rewrite) => {
                let wire = Rewriter::to(Path::new(folder).join(".s.PGSQL.5432"), rewrite).await;
                let port = wire.port();
                (format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=disable"), Some(wire))
            }
        };
        Self::Postgres { admin: Mutex::new(admin), url, role, _wire: wire }
    }

    async fn sqlite(sabotage: &[&'static str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = life(root.path(), 0);
        // Makes the tables.
        drop(SqliteStore::open(&folder, Times::default().sqlite()).await.unwrap());
        let mut connection = sqlite(&folder).connect().await.unwrap();
        for statement in sabotage::haste(Kind::Sqlite).iter().chain(sabotage) {
            connection.execute(*statement).await.unwrap();
        }
        // The lock may be let go of a little later: the first process has another folder.
        let first = life(root.path(), 1);
        std::fs::create_dir(&first).unwrap();
        let target = first.join("meta.sqlite").display().to_string();
        sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Self::Sqlite { root, lives: AtomicUsize::new(1) }
    }
}

fn life(root: &Path, number: usize) -> PathBuf {
    root.join(format!("life-{number}"))
}

fn sqlite(folder: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().filename(folder.join("meta.sqlite"));
    options.busy_timeout(Duration::from_secs(20)).disable_statement_logging()
}

async fn run(connection: &mut PgConnection, statement: &str) {
    let outcome = connection.execute(AssertSqlSafe(statement.to_owned())).await;
    outcome.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// The tables that hold the state.
async fn tables(admin: &mut PgConnection) -> Vec<String> {
    let statement = "SELECT table_name::text FROM information_schema.tables
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> '_sqlx_migrations'";
    sqlx::query_scalar(statement).fetch_all(admin).await.unwrap()
}

async fn keep_tables(admin: &mut PgConnection, name: &str, old: Option<&str>) {
    let tables = tables(admin).await;
    let mut script = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE SCHEMA {name};");
    for table in tables {
        write!(script, "CREATE TABLE {name}.{table} AS TABLE public.{table};").unwrap();
    }
    write!(script, "CREATE TABLE {name}.seq AS SELECT last_value FROM public.versions;").unwrap();
    if let Some(old) = old {
        write!(script, "DROP SCHEMA {old} CASCADE;").unwrap();
    }
    sqlx::raw_sql(AssertSqlSafe(script + "COMMIT;")).execute(admin).await.unwrap();
}

/// Ends all connections of the replicas, and keeps them out.
async fn cut(admin: &mut PgConnection, role: &str) {
    run(admin, &format!("ALTER ROLE {role} NOLOGIN")).await;
    let end =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'");
    loop {
        let left: i64 = sqlx::query_scalar(AssertSqlSafe(end.clone())).fetch_one(&mut *admin).await.unwrap();
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn restore_tables(admin: &mut PgConnection, name: Option<&str>, registry: Uuid) {
    let tables = tables(admin).await;
    let mut script = String::from("BEGIN; SET LOCAL session_replication_role = replica;");
    write!(script, "TRUNCATE {};", tables.join(", ")).unwrap();
    if let Some(name) = name {
        for table in &tables {
            write!(
                script,
                "INSERT INTO public.{table} OVERRIDING SYSTEM VALUE SELECT * FROM {name}.{table};"
            )
            .unwrap();
        }
        script += "UPDATE meta SET fence = '-infinity';";
        write!(
            script,
            "SELECT setval('versions', greatest((SELECT last_value FROM {name}.seq) - {BEHIND}, 1));"
        )
        .unwrap();
    } else {
        write!(script, "INSERT INTO meta (registry, schema) VALUES ('{registry}', {SCHEMA});").unwrap();
        script += "SELECT setval('versions', 1);";
    }
    // Ids of rows that were lost are given again.
    for (table, sequence) in identities(admin).await {
        write!(script, "SELECT setval('{sequence}', coalesce((SELECT max(id) FROM {table}), 0) + 1, false);")
            .unwrap();
    }
    sqlx::raw_sql(AssertSqlSafe(script + "COMMIT;")).execute(admin).await.unwrap();
}

/// The next claim is that of the lost incarnation, which was never walked.
const EPOCHS_RETURN: &str = "UPDATE meta SET epoch = epoch - 1, claim = epoch - 1, reconciled = -1";

const SCHEMA: i32 = stowage_registry::meta::postgres::SCHEMA;

async fn identities(admin: &mut PgConnection) -> Vec<(String, String)> {
    let statement = "SELECT table_name::text, pg_get_serial_sequence('public.' || table_name, column_name)
        FROM information_schema.columns
        WHERE table_schema = 'public' AND column_name = 'id' AND is_identity = 'YES'";
    sqlx::query_as(statement).fetch_all(admin).await.unwrap()
}

/// Makes the file of the next process: what was kept, or that of the last without its rows.
async fn restore_file(last: &Path, folder: &Path, kept: Option<&Path>, registry: Uuid) {
    std::fs::create_dir(folder).unwrap();
    let file = folder.join("meta.sqlite");
    if let Some(kept) = kept {
        std::fs::copy(kept, &file).unwrap();
    } else {
        let mut connection = sqlite(last).connect().await.unwrap();
        let target = file.display().to_string();
        sqlx::query("VACUUM INTO ?1").bind(target).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    let mut connection = sqlite(folder).foreign_keys(false).connect().await.unwrap();
    if kept.is_none() {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
                AND name NOT IN ('_sqlx_migrations', 'counters')",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        for table in tables {
            connection.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap();
        }
        connection.execute("DELETE FROM sqlite_sequence").await.unwrap();
        let schema = stowage_registry::meta::sqlite::SCHEMA;
        sqlx::query("INSERT INTO meta (one, registry, schema) VALUES (1, ?1, ?2)")
            .bind(registry)
            .bind(schema)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let behind = if kept.is_some() { BEHIND } else { i64::MAX };
    sqlx::query("UPDATE counters SET value = max(value - ?1, 1)")
        .bind(behind)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// Data that a row claims.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) generation: Generation,
    pub(super) form: Form,
    pub(super) size: u64,
}

/// What the rows say, by repository and name; digests and generations as in keys.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Live tags and the digests they name.
    pub(super) tags: BTreeMap<(String, String), Digest>,
    /// Live manifests and their records.
    pub(super) manifests: BTreeMap<(String, Digest), Generation>,
    /// Visible links and their records.
    pub(super) links: BTreeMap<(String, Digest), Generation>,
    /// Stored blobs.
    pub(super) blobs: BTreeMap<Digest, Data>,
    /// What is to be done in the bucket, oldest first.
    pub(super) outbox: Vec<(i64, Vec<String>)>,
    /// Versions of live tags and the generations of their records.
    pub(super) versions: BTreeMap<(String, String), (u32, u64, Generation)>,
    /// Records of promotions that took effect, by the keys of their objects.
    pub(super) ledger: BTreeMap<String, String>,
    /// How many intents there are.
    pub(super) intents: usize,
}

type TagColumns = (String, String, Vec<u8>, i64, i64, Uuid);
type LedgerColumns = (String, Vec<u8>, i64, i64, Uuid, String);
type BlobColumns = (Vec<u8>, Uuid, i64, Option<i64>, i64);

const TAGS: &str = "SELECT r.name, t.name, m.digest, CAST(t.epoch AS bigint), CAST(t.seq AS bigint), t.gen
    FROM tags t JOIN repositories r ON r.id = t.repo_id JOIN manifests m ON m.id = t.manifest_id
    WHERE t.trashed_until IS NULL";
const MANIFESTS: &str = "SELECT r.name, m.digest, m.gen FROM manifests m
    JOIN repositories r ON r.id = m.repo_id WHERE m.state = 1";
const LINKS: &str = "SELECT r.name, l.digest, l.gen FROM repo_blobs l
    JOIN repositories r ON r.id = l.repo_id WHERE l.gen IS NOT NULL";
const BLOBS: &str = "SELECT digest, gen, CAST(form AS bigint), CAST(tail AS bigint), CAST(size AS bigint)
    FROM blobs WHERE form <> 0";

const PROMOTIONS: &str = "SELECT target_repo, digest, CAST(epoch AS bigint), CAST(seq AS bigint), gen,
    CAST(evidence AS text) FROM promotions WHERE gen IS NOT NULL";

macro_rules! rows_of {
    ($name:ident, $connection:ty) => {
        async fn $name(connection: &mut $connection, outbox: &'static str) -> Rows {
            let tags: Vec<TagColumns> = sqlx::query_as(TAGS).fetch_all(&mut *connection).await.unwrap();
            let manifests: Vec<(String, Vec<u8>, Uuid)> =
                sqlx::query_as(MANIFESTS).fetch_all(&mut *connection).await.unwrap();
            let links: Vec<(String, Vec<u8>, Uuid)> =
                sqlx::query_as(LINKS).fetch_all(&mut *connection).await.unwrap();
            let blobs: Vec<BlobColumns> = sqlx::query_as(BLOBS).fetch_all(&mut *connection).await.unwrap();
            let outbox: Vec<(i64, String)> =
                sqlx::query_as(outbox).fetch_all(&mut *connection).await.unwrap();
            let ledger: Vec<LedgerColumns> =
                sqlx::query_as(PROMOTIONS).fetch_all(&mut *connection).await.unwrap();
            let intents: i64 =
                sqlx::query_scalar("SELECT count(*) FROM intents").fetch_one(&mut *connection).await.unwrap();
            Rows {
                ledger: ledger.into_iter().map(promotion).collect(),
                ..Rows::read(tags, manifests, links, blobs, outbox, intents)
            }
        }
    };
}
rows_of!(rows_of_postgres, PgConnection);
rows_of!(rows_of_sqlite, sqlx::SqliteConnection);

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(bytes).expect("a digest")
}

impl Rows {
    fn read(
        tags: Vec<TagColumns>,
        manifests: Vec<(String, Vec<u8>, Uuid)>,
        links: Vec<(String, Vec<u8>, Uuid)>,
        blobs: Vec<BlobColumns>,
        outbox: Vec<(i64, String)>,
        intents: i64,
    ) -> Self {
        let mut rows = Self { intents: intents.try_into().unwrap(), ..Self::default() };
        for (repository, tag, bytes, epoch, seq, generation) in tags {
            let version =
                (epoch.try_into().unwrap(), seq.try_into().unwrap(), Generation::from_uuid(generation));
            rows.versions.insert((repository.clone(), tag.clone()), version);
            rows.tags.insert((repository, tag), digest(&bytes));
        }
        let named = |(repository, bytes, generation): (String, Vec<u8>, Uuid)| {
            ((repository, digest(&bytes)), Generation::from_uuid(generation))
        };
        rows.manifests = manifests.into_iter().map(named).collect();
        rows.links = links.into_iter().map(named).collect();
        rows.blobs = blobs.into_iter().map(data).collect();
        rows.outbox =
            outbox.into_iter().map(|(id, steps)| (id, serde_json::from_str(&steps).unwrap())).collect();
        rows
    }

    /// Every key that a live row names.
    pub(super) fn live_keys(&self) -> std::collections::BTreeSet<String> {
        let repository = |text: &str| text.parse().unwrap();
        let manifests = self.manifests.iter().map(|((name, digest), generation)| Key::Manifest {
            repository: repository(name),
            digest: *digest,
            generation: *generation,
        });
        let links = self.links.iter().map(|((name, digest), generation)| Key::Link {
            repository: repository(name),
            digest: *digest,
            generation: *generation,
        });
        let tags = self.versions.iter().map(|(at, (epoch, seq, generation))| Key::Tag {
            repository: repository(&at.0),
            tag: at.1.parse().unwrap(),
            version: stowage_registry::key::Version { epoch: *epoch, seq: *seq },
            generation: *generation,
            target: Some(self.tags[at]),
        });
        let blobs = self.blobs.iter().flat_map(|(digest, data)| {
            let location = data.location();
            [location.blob_key(*digest), location.data_key(*digest)]
        });
        let keys = manifests.chain(links).chain(tags).chain(blobs).map(|key| key.to_string());
        keys.chain(self.ledger.keys().cloned()).collect()
    }
}

fn promotion(columns: LedgerColumns) -> (String, String) {
    let (repository, bytes, epoch, seq, generation, record) = columns;
    let (epoch, seq) = (epoch.try_into().unwrap(), seq.try_into().unwrap());
    let key = Key::Ledger {
        repository: repository.parse().unwrap(),
        digest: digest(&bytes),
        version: stowage_registry::key::Version { epoch, seq },
        generation: Generation::from_uuid(generation),
    };
    (key.to_string(), record)
}

impl Data {
    pub(super) fn location(&self) -> stowage_registry::meta::Location {
        let Self { generation, form, size } = *self;
        stowage_registry::meta::Location { generation, form, size }
    }
}

fn data((bytes, generation, form, tail, size): BlobColumns) -> (Digest, Data) {
    let form = match (form, tail) {
        (1, None) => Form::Inline,
        (2, None) => Form::Upload,
        (3, Some(lease)) => Form::Tail(lease.try_into().unwrap()),
        other => panic!("form {other:?}"),
    };
    let generation = Generation::from_uuid(generation);
    (digest(&bytes), Data { generation, form, size: size.try_into().unwrap() })
}
