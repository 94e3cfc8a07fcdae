// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where a registry keeps its content and its names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::all_defaults;
use crate::{Duration, Empty, HttpUrl, KeyRef, Quantity, SecretRef};

/// Where content lies: exactly one of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Storage {
    /// A bucket of an S3 service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// A folder: the volume in a cluster, `--data-dir` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Empty>,
}

/// A bucket of an S3 service, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Name of the bucket. Cannot change.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub bucket: String,
    /// What every key begins with, without a slash at either end. Cannot change.
    #[serde(default)]
    #[schemars(
        length(max = 128),
        regex(pattern = r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$")
    )]
    pub prefix: String,
    /// Region of the bucket.
    #[serde(default = "S3::default_region")]
    #[schemars(length(max = 253), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub region: String,
    /// URL of the service. Absent: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<HttpUrl>,
    /// Whether the bucket is named in the path, not in the host.
    #[serde(default)]
    pub force_path_style: bool,
    /// Secret with `accessKeyId`, `secretAccessKey` and perhaps `sessionToken`. Absent: the environment's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// Certificate authorities of the endpoint. Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyRef>,
    /// Whether clients fetch blobs from the bucket themselves. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
}

impl S3 {
    fn default_region() -> String {
        "us-east-1".to_owned()
    }
}

/// When a pull of a blob is answered by a redirect to the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// Whether to redirect at all.
    #[serde(default)]
    pub mode: RedirectMode,
    /// Smaller blobs are always answered from here.
    #[serde(default = "Redirect::default_min_size")]
    pub min_size: Quantity,
    /// Clients whose `User-Agent` begins with one of these are never redirected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "set"),
        inner(length(min = 1, max = 253))
    )]
    pub exclude_user_agents: Vec<String>,
}

impl Redirect {
    fn default_min_size() -> Quantity {
        "1Mi".parse().expect("a quantity")
    }
}

impl Default for Redirect {
    fn default() -> Self {
        all_defaults()
    }
}

/// Whether pulls of blobs are redirected to the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RedirectMode {
    /// Every byte passes through a replica.
    #[default]
    Never,
    /// Clients are sent to the bucket with a signed URL.
    Always,
}

/// Where names and links lie: exactly one of postgres and sqlite.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// A PostgreSQL database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// A file beside the content, for one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<Empty>,
    /// How the schema is brought up to a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Migrations>,
    /// How long a write waits for a lost database before it is answered with 503, at most a minute.
    #[serde(default = "Database::default_write_hold")]
    #[schemars(regex(pattern = r"^([1-5]?[0-9]|60)s$"))]
    pub write_hold: Duration,
}

impl Database {
    fn default_write_hold() -> Duration {
        "20s".parse().expect("a duration")
    }

    /// How migrations are released, with the default where the spec says nothing.
    #[must_use]
    pub fn migration_policy(&self) -> MigrationPolicy {
        self.migrations.as_ref().map(|migrations| migrations.policy).unwrap_or_default()
    }
}

/// A PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Postgres {
    /// Key that holds the `postgresql://` URL.
    pub url_secret_ref: KeyRef,
    /// Certificate authorities of the server. Absent: what the URL says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyRef>,
    /// Connections that one replica keeps at most.
    #[serde(default = "Postgres::default_max_connections")]
    #[schemars(range(min = 4, max = 200))]
    pub max_connections: i32,
}

impl Postgres {
    fn default_max_connections() -> i32 {
        16
    }
}

/// How the schema of the database is brought up to a new version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Migrations {
    /// Who releases a migration.
    #[serde(default)]
    pub policy: MigrationPolicy,
}

/// Who releases a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MigrationPolicy {
    /// The operator, before it rolls out a new image.
    #[default]
    Automatic,
    /// A human, by the annotation `stowage.dev/approve-migration`.
    Manual,
}
