// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The mirrors of the document → values that hold.
//!
//! Guarantees: a Secret that is missing is the trouble of its mirror alone. The mirror keeps its path, so that nothing
//! else answers below it.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use stowage_crds::conditions::Reason;
use stowage_crds::document::{Document, Entry, Schedules};
use stowage_crds::{
    KeyRef, Kind, MirrorMode, MirrorReferrers, MirrorSecret, MirrorSpec, NotAPublicKey, PublicKey, SecretRef,
    TlsVerification, UpstreamNetwork, Verification,
};
use stowage_oci::{Digest, Name};

use super::build::field;
use super::error::ConfigError;
use super::live::Trouble;
use super::secrets::SecretsDir;
use crate::signatures::{Key, Keys};

/// Repositories of another registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// What the names of its repositories begin with.
    pub path: Name,
    /// The registry it mirrors.
    pub upstream: Upstream,
    /// Whether the upstream may be asked at all.
    pub asks_upstream: bool,
    /// Whether it takes names that nothing else has.
    pub is_default: bool,
    /// Whether the upstream is asked what refers to something.
    pub with_referrers: bool,
    /// How long what was fetched counts as current.
    pub cache: MirrorCache,
    /// Whose signatures an image must have; `None`: nobody's.
    pub keys: Option<Keys>,
}

/// How to reach the registry of a mirror. The files are read when they are needed, so that they can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Scheme, host and port.
    pub url: Uri,
    /// Further hosts by which clients know it.
    pub hosts: Vec<String>,
    /// A folder with `.dockerconfigjson`, or `username` and `password`, or `token`.
    pub credentials: Option<PathBuf>,
    /// A file with authorities in PEM.
    pub authorities: Option<PathBuf>,
    /// A folder with `tls.crt` and `tls.key`.
    pub client_certificate: Option<PathBuf>,
    /// A file with the URL of an HTTP proxy.
    pub proxy: Option<PathBuf>,
    /// Whether its certificate is verified.
    pub verification: TlsVerification,
    /// Which addresses it may have.
    pub network: UpstreamNetwork,
    /// Requests at the same time.
    pub max_concurrent: usize,
    /// Requests a second, of all replicas together.
    pub requests_per_second: Option<NonZeroU32>,
}

/// How long what was fetched counts as current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorCache {
    /// How long a tag is not asked for again.
    pub tag_ttl: Duration,
    /// How long what was not there is not asked for again.
    pub negative_ttl: Duration,
    /// How long past that a tag is answered while the upstream fails.
    pub stale_for: Duration,
    /// How long a tag stays what it was after the upstream moved it.
    pub quarantine: Option<Duration>,
}

/// What goes from the cache of a mirror by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The mirror.
    pub mirror: String,
    /// What the names of its repositories begin with.
    pub path: Name,
    /// What was not pulled for longer goes.
    pub unused_for: Option<Duration>,
    /// What was fetched longer ago goes.
    pub max_age: Option<Duration>,
    /// The least recently used goes beyond so many bytes.
    pub max_size: Option<u64>,
    /// What virtual repositories pin.
    pub pinned: HashSet<Digest>,
}

/// Of the mirrors that evict, what goes. One that may not ask its upstream keeps all that it has: nothing of it could be
/// fetched again.
pub(super) fn evictions(document: &Document) -> Result<Vec<Eviction>, ConfigError> {
    let pins = document.virtual_repositories.iter().flat_map(|entry| &entry.spec.pins);
    let pinned: HashSet<Digest> = pins.filter_map(|pin| pin.digest.as_str().parse().ok()).collect();
    let mut evictions = Vec::new();
    for entry in document.mirrors.iter().filter(|entry| entry.spec.asks_upstream()) {
        let (Some(path), Some(eviction)) = (&entry.spec.path, entry.spec.cache().eviction) else { continue };
        let at = format!("Mirror {}: spec.path", entry.name);
        evictions.push(Eviction {
            mirror: entry.name.clone(),
            path: path.parse().map_err(|error| field(at, error))?,
            unused_for: eviction.unused_for.as_ref().map(stowage_crds::Duration::to_std),
            max_age: eviction.max_age.as_ref().map(stowage_crds::Duration::to_std),
            max_size: eviction.max_size.as_ref().map(stowage_crds::Quantity::bytes),
            pinned: pinned.clone(),
        });
    }
    Ok(evictions)
}

pub(super) fn mirrors(document: &Document, secrets: &SecretsDir) -> Result<Vec<Mirror>, ConfigError> {
    let pulls = |entry: &&Entry<MirrorSpec>| entry.spec.mode == MirrorMode::PullThrough;
    document.mirrors.iter().filter(pulls).map(|entry| mirror(entry, secrets)).collect()
}

fn mirror(entry: &Entry<MirrorSpec>, secrets: &SecretsDir) -> Result<Mirror, ConfigError> {
    let spec = &entry.spec;
    let at = |path: &str| format!("Mirror {}: spec.{path}", entry.name);
    let cache = spec.cache();
    let path = spec.path.as_ref().ok_or_else(|| field(at("path"), "mode PullThrough needs a path"))?;
    Ok(Mirror {
        name: entry.name.clone(),
        path: path.parse().map_err(|error| field(at("path"), error))?,
        upstream: upstream(entry, secrets)?,
        asks_upstream: spec.asks_upstream(),
        is_default: spec.default,
        with_referrers: spec.referrers == MirrorReferrers::Include,
        cache: MirrorCache {
            tag_ttl: cache.tag_ttl.to_std(),
            negative_ttl: cache.negative_ttl.to_std(),
            stale_for: cache.stale_for.to_std(),
            quarantine: cache.quarantine.as_ref().map(stowage_crds::Duration::to_std),
        },
        keys: keys(entry)?,
    })
}

/// Whose signatures the images of a mirror must have.
pub(super) fn keys(entry: &Entry<MirrorSpec>) -> Result<Option<Keys>, ConfigError> {
    let at = format!("Mirror {}: spec.verify", entry.name);
    entry.spec.verify.as_ref().map(|wanted: &Verification| public_keys(&at, &wanted.keys)).transpose()
}

/// The keys in a list `keys` of `at`.
pub(super) fn public_keys(at: &str, keys: &[PublicKey]) -> Result<Keys, ConfigError> {
    let key = |(place, key): (usize, &PublicKey)| {
        let at = || format!("{at}.keys[{place}].publicKey");
        let der = key.public_key.der().map_err(|error| field(at(), error))?;
        Key::new(key.name.as_str(), der).ok_or_else(|| field(at(), NotAPublicKey::Kind))
    };
    Ok(Keys::new(keys.iter().enumerate().map(key).collect::<Result<Vec<_>, _>>()?))
}

/// How to reach the registry of a mirror.
pub(super) fn upstream(entry: &Entry<MirrorSpec>, secrets: &SecretsDir) -> Result<Upstream, ConfigError> {
    let upstream = &entry.spec.upstream;
    let at = |path: &str| format!("Mirror {}: spec.{path}", entry.name);
    let file = |path: &str, key: Option<&KeyRef>| {
        let file = key.map(|key| secrets.file(&key.name, &key.key)).transpose();
        file.map_err(|error| field(at(path), error))
    };
    let folder = |path: &str, secret: Option<&SecretRef>| {
        let folder = secret.map(|secret| secrets.folder(&secret.name)).transpose();
        folder.map_err(|error| field(at(path), error))
    };
    let url = upstream.url.as_str().parse::<Uri>();
    Ok(Upstream {
        url: url.map_err(|error| field(at("upstream.url"), error))?,
        hosts: upstream.hosts.iter().map(ToString::to_string).collect(),
        credentials: folder("upstream.secretRef", upstream.secret_ref.as_ref())?,
        authorities: file("upstream.caSecretRef", upstream.ca_secret_ref.as_ref())?,
        client_certificate: folder("upstream.clientCertSecretRef", upstream.client_cert_secret_ref.as_ref())?,
        proxy: file("upstream.proxySecretRef", upstream.proxy_secret_ref.as_ref())?,
        verification: upstream.tls_verification,
        network: upstream.network,
        max_concurrent: usize::try_from(upstream.max_concurrent).unwrap_or(1).max(1),
        requests_per_second: upstream.requests_per_second.map(|count| {
            // The schema has no less than one.
            u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
        }),
    })
}

/// Which mirrors miss a Secret.
pub(super) fn troubles(document: &Document, secrets: &SecretsDir) -> Vec<Trouble> {
    let missing = |entry: &Entry<MirrorSpec>| {
        let secret = entry.spec.secrets().into_iter().find(|secret| !is_there(secret, secrets))?;
        Some(Trouble {
            kind: Kind::Mirror,
            name: entry.name.clone(),
            reason: Reason::SecretNotFound,
            message: format!("{}: Secret {} must have {}", secret.path, secret.name, wanted(&secret)),
        })
    };
    // Where Jobs copy, they alone are given the Secrets of those that replicate.
    let is_ours = |entry: &&Entry<MirrorSpec>| {
        entry.spec.mode == MirrorMode::PullThrough || document.runtime.schedules == Schedules::InProcess
    };
    document.mirrors.iter().filter(is_ours).filter_map(missing).collect()
}

fn is_there(secret: &MirrorSecret, secrets: &SecretsDir) -> bool {
    let readable = |key: &String| secrets.bytes(&secret.name, key).is_ok();
    secret.forms.iter().any(|keys| keys.iter().all(readable))
}

/// `a, or b and c`.
fn wanted(secret: &MirrorSecret) -> String {
    secret.forms.iter().map(|keys| keys.join(" and ")).collect::<Vec<_>>().join(", or ")
}
