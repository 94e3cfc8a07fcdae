// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The configuration: resources as YAML, or the operator's compiled document, made into values that hold.
//!
//! Files → resources → strict check → document → [`Config`]. Whatever is wrong is named with file, document and
//! field path, before anything is started or changed.
//! Guarantees: a `Config` is complete: secrets are read, patterns parsed, the certificate fits its key.
//! Never: lets text further in that has a type.

mod build;
mod error;
mod files;
mod live;
mod mirrors;
mod promotions;
mod replications;
mod retention;
mod secrets;
mod show;
mod tls;
mod usage;
mod virtuals;
mod watch;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use stowage_crds::Schedule;
use stowage_crds::document::Document;
pub use stowage_crds::document::Schedules;
use stowage_oci::{Glob, Name, TagSelection};

pub use error::{ConfigError, Problem, explained};
pub use live::{Facts, Live, MirrorFault, Rejected, Trouble};
pub use mirrors::{Eviction, Mirror, MirrorCache, Upstream};
pub use promotions::{NotAnArtifact, PromotionCondition, PromotionPolicy, PromotionRequest};
pub use replications::{
    Artifacts as ReplicatedArtifacts, Due, Replication, Repositories as ReplicatedRepositories,
};
pub use retention::Retention;
pub use secrets::{Secret, SecretError, SecretsDir};
pub use show::{Shown, show};
pub use stowage_crds::{
    PromotionTrigger, Quantity, RemoteShadowing, TagResolution, TlsVerification, UpstreamNetwork,
};
pub use tls::TlsError;
pub use virtuals::{Member, Pin, Source, Virtual};
pub use watch::{LOOK, watch};

use crate::auth::Snapshot;
use crate::http::Redirect;
use crate::operation::Mode;
use crate::ops::traces;
use crate::usage::Protection;

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Files and folders; without any, the embedded defaults hold.
    pub paths: Vec<PathBuf>,
    /// Which Registry, when the files hold several.
    pub registry: Option<String>,
    /// The folder with a folder for each Secret.
    pub secrets: SecretsDir,
    /// Where a standalone process keeps its data, and the keys of its tokens.
    pub data_dir: PathBuf,
    /// Where clients are served. `None` for commands that serve nobody.
    pub listen: Option<SocketAddr>,
}

/// Everything that a process goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the registry.
    pub registry: String,
    /// Hash of the document.
    pub hash: String,
    /// Hosts (`host[:port]`) under which it answers; the first is the external one.
    pub hosts: Vec<String>,
    /// Where content lies.
    pub storage: Storage,
    /// When clients fetch blobs from the bucket themselves; `None` is never.
    pub redirect: Option<Redirect>,
    /// Where names and links lie.
    pub database: Database,
    /// How long a write waits for a lost database.
    pub write_hold: Duration,
    /// Which changes clients may make.
    pub mode: Mode,
    /// What one process takes on at once.
    pub limits: Limits,
    /// How damage is looked for in the background; `None`: it is not.
    pub scrub: Option<Scrub>,
    /// Repositories in which every child of an index must exist.
    pub strict_indexes: Vec<Glob>,
    /// Tags that never name a second digest.
    pub immutability: Vec<Immutable>,
    /// Who starts the runs of collectors, mirrors and policies.
    pub schedules: Schedules,
    /// When and how what nothing names any more is removed.
    pub collection: Collection,
    /// Who may do what.
    pub access: Snapshot,
    /// Repositories of other registries, by name.
    pub mirrors: Vec<Mirror>,
    /// What goes from the caches of mirrors by itself.
    pub evictions: Vec<Eviction>,
    /// Whose workloads keep what they run; `None`: nobody's.
    pub usage: Option<Protection>,
    /// Mirrors that copy, by name.
    pub replications: Vec<Replication>,
    /// Where clients cannot push, because mirrors copy there.
    pub copied: Vec<Name>,
    /// Paths over several sources, by name. No path of these and of the mirrors is below another.
    pub virtuals: Vec<Virtual>,
    /// What is promoted by what, by name.
    pub promotions: Vec<PromotionPolicy>,
    /// What runs of retention go by.
    pub retention: Arc<Retention>,
    /// Resources that do not work as written, while the others do.
    pub troubles: Vec<Trouble>,
    /// Where traces are sent; `None` is nowhere.
    pub traces: Option<traces::Settings>,
    /// TLS on the data port, if any.
    pub tls: Option<Arc<ServerConfig>>,
    document: Document,
}

/// Tags that never name a second digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immutable {
    /// The rule's name.
    pub name: String,
    /// In which repositories.
    pub repositories: Vec<Glob>,
    /// Which tags.
    pub tags: TagSelection,
    /// Whether tags that stand for referrers are among them.
    pub signature_tags: bool,
    /// Whether retention may delete them.
    pub retention_deletes: bool,
}

/// Where content lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A folder below `--data-dir`.
    Filesystem,
    /// A bucket.
    S3(Box<S3>),
}

/// A bucket of an S3 service, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// Name of the bucket.
    pub bucket: String,
    /// What every key begins with; empty, or without a slash at either end.
    pub prefix: String,
    /// Region of the bucket.
    pub region: String,
    /// URL of the service; `None` is AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path.
    pub force_path_style: bool,
    /// Folder with the files `accessKeyId`, `secretAccessKey` and perhaps `sessionToken`, which are read again
    /// from time to time; `None` is the identity of the environment.
    pub credentials: Option<PathBuf>,
    /// PEM of the authorities that sign the endpoint's certificate; `None` is the public ones.
    pub ca: Option<Vec<u8>>,
}

/// Where names and links lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file below `--data-dir`.
    Sqlite,
    /// A PostgreSQL server.
    Postgres(Postgres),
}

/// A PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// `postgresql://…`
    pub url: Secret<String>,
    /// File with the PEM of the authorities that sign the server's certificate.
    pub ca: Option<PathBuf>,
    /// Connections at most.
    pub max_connections: u32,
}

/// When and how what nothing names any more is removed.
#[derive(Clone, Debug)]
pub struct Collection {
    /// When this process starts a run; `None` while that is suspended, and where Kubernetes starts the runs.
    pub schedule: Option<Schedule>,
    /// How long something must have been unnamed before it is removed.
    pub grace: Duration,
    /// How long deleted tags and manifests can be restored; zero keeps none.
    pub retain_for: Duration,
}

/// How damage is looked for in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// Over how much time one look at everything is spread.
    pub interval: Duration,
    /// Bytes of content a second.
    pub bytes_per_second: NonZeroU64,
}

/// What one process takes on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest blob, in bytes.
    pub max_blob_size: Option<u64>,
    /// Requests in flight.
    pub max_concurrent_requests: usize,
    /// Uploads that receive bytes.
    pub max_concurrent_uploads: usize,
    /// Memory for the bytes of uploads.
    pub upload_memory: u64,
    /// Memory for facts that never change.
    pub cache_memory: u64,
}

/// Reads the configuration.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let (document, origin) = read(sources)?;
    build::config(document, origin, sources)
}

fn read(sources: &Sources) -> Result<(Document, files::Origin), ConfigError> {
    let address = sources.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 5000)));
    files::read(&sources.paths, sources.registry.as_deref(), &format!("http://{address}"))
}

/// Reads only what is needed to reach the database, for commands that need nothing else.
pub fn load_database(sources: &Sources) -> Result<Database, ConfigError> {
    build::database(&read(sources)?.0.registry.spec, &sources.secrets)
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Where content lies.
    pub storage: Storage,
    /// Where names and links lie.
    pub database: Database,
    /// How long something must have been unnamed before it is removed.
    pub grace: Duration,
}

/// Reads only what is needed to reach content and database.
pub fn load_backing(sources: &Sources) -> Result<Backing, ConfigError> {
    build::backing(&read(sources)?.0.registry.spec, &sources.secrets)
}

/// What one run of the collector needs.
#[derive(Clone, Debug)]
pub struct Collecting {
    /// Where content and database are.
    pub backing: Backing,
    /// What goes from the caches of mirrors.
    pub evictions: Vec<Eviction>,
    /// Whose workloads keep what they run; `None`: nobody's.
    pub usage: Option<Protection>,
}

/// Reads only what is needed for a run of the collector.
pub fn load_collecting(sources: &Sources) -> Result<Collecting, ConfigError> {
    let (document, origin) = read(sources)?;
    Ok(Collecting {
        backing: build::backing(&document.registry.spec, &sources.secrets)?,
        evictions: mirrors::evictions(&document)?,
        usage: usage::protection(&document, origin)?,
    })
}

/// What every process needs that pushes and serves nobody.
#[derive(Clone, Debug)]
pub struct Pushing {
    /// Where content and database are.
    pub backing: Backing,
    /// Which changes the registry takes.
    pub mode: Mode,
    /// Repositories in which every child of an index must exist.
    pub strict_indexes: Vec<Glob>,
    /// Tags that never name a second digest.
    pub immutability: Vec<Immutable>,
    /// What is promoted by what, by name: what is pushed may wait for it.
    pub promotions: Vec<PromotionPolicy>,
    /// The largest blob, in bytes.
    pub max_blob_size: Option<u64>,
    /// How long deleted tags can be restored.
    pub retain_for: Duration,
}

/// What one run of a mirror that replicates needs.
#[derive(Clone, Debug)]
pub struct Sync {
    /// As whoever pushes.
    pub pushing: Pushing,
    /// The mirror.
    pub replication: Replication,
}

/// Reads only what is needed for a run of the mirror `name`.
pub fn load_sync(sources: &Sources, name: &str) -> Result<Sync, ConfigError> {
    let (document, _) = read(sources)?;
    build::sync(&document, &sources.secrets, name)
}

/// What a promotion needs.
#[derive(Clone, Debug)]
pub struct Promoting {
    /// As whoever pushes.
    pub pushing: Pushing,
    /// The mirrors that are pulled through: what is promoted from one may have to be fetched.
    pub mirrors: Vec<Mirror>,
    /// The policy.
    pub policy: PromotionPolicy,
}

/// Reads only what is needed for a promotion by the policy `name`.
pub fn load_promotion(sources: &Sources, name: &str) -> Result<Promoting, ConfigError> {
    let (document, _) = read(sources)?;
    build::promotion(&document, &sources.secrets, name)
}

/// What one run of a retention policy needs.
#[derive(Clone, Debug)]
pub struct RetentionRun {
    /// Where content and database are.
    pub backing: Backing,
    /// All policies, and what else guards tags.
    pub retention: Retention,
    /// Whose workloads keep what they run; `None`: nobody's.
    pub usage: Option<Protection>,
}

/// Reads only what is needed for a run of the retention policy `name`.
pub fn load_retention(sources: &Sources, name: &str) -> Result<RetentionRun, ConfigError> {
    let (document, origin) = read(sources)?;
    build::retention(&document, origin, &sources.secrets, name)
}

#[cfg(test)]
mod tests;
