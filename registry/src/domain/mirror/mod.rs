// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Repositories of other registries: fetched when they are asked for, kept, and answered while the other is away.
//!
//! A manifest is stored like any other, by the push protocol, before its blobs are here: they have hidden links and
//! rows without data until somebody asks for them. A tag is answered for its TTL without asking, then compared with the
//! upstream by a HEAD. A blob is fetched once for all who want it ([`fetch`]), in a task that no client holds up. What
//! refers to a manifest is listed by the upstream and by us ([`referrers`]).
//! Guarantees: wrong bytes are never stored and never complete an answer. What was fetched is answered while the
//! upstream fails. A mirror that may not ask makes no connection.
//! Assumes: the database is what replicas agree by about who asks; without it each asks for itself, and stores nothing.

mod ahead;
mod ask;
mod content;
mod fetch;
mod flights;
mod manifests;
mod memory;
pub(super) mod names;
mod pulse;
mod quarantine;
mod reader;
mod referrers;
mod signed;
mod window;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use stowage_oci::{Digest, Name, Reference};

use super::rate_limit::RateLimit;
use super::{Domain, Error};
use crate::blobs;
use crate::ops::metrics::MirrorMetrics;
use crate::ops::permits::Permits;
use crate::signatures::{Keys, Unsigned};
use crate::upstream::{self, Settings, Upstream};

pub use content::MirroredBlob;
pub use names::{Mirrored, Place};
pub use reader::Reader;

use fetch::Fetches;
pub(super) use fetch::PRINCIPAL;
use flights::Flights;
use memory::Memory;
use pulse::Pulse;

/// A mirror, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// What it is called.
    pub name: String,
    /// What the names of its repositories begin with.
    pub path: Name,
    /// The registry that it mirrors.
    pub upstream: Settings,
    /// Whether that may be asked at all.
    pub asks_upstream: bool,
    /// Whether it takes the names that nothing else has.
    pub is_default: bool,
    /// Whether the upstream is asked what refers to something.
    pub with_referrers: bool,
    /// How long what was fetched counts as current.
    pub cache: Cache,
    /// Whose signatures an image must have; `None`: nobody's.
    pub keys: Option<Keys>,
}

/// How long what was fetched counts as current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// How long a tag is answered without asking again.
    pub tag_ttl: Duration,
    /// How long what was not there is not asked for again.
    pub negative_ttl: Duration,
    /// How long past that a tag is answered while the upstream fails or refuses us.
    pub stale_for: Duration,
    /// How long a tag stays what it was after the upstream moved it; `None`: not at all.
    pub quarantine: Option<Duration>,
}

/// A mirror at work.
#[derive(Debug)]
pub struct Mirror {
    /// As it is configured.
    pub settings: MirrorSettings,
    upstream: Upstream,
    /// How often it may be asked.
    rate: Arc<RateLimit>,
    /// What it did not have.
    missing: Memory<(Name, Reference), ()>,
    /// What its tags are there and not yet here, and from when on.
    waiting: Memory<(Name, Reference), (Digest, jiff::Timestamp)>,
    /// Tags that are immutable here and by now something else there, or nothing.
    kept: Memory<(Name, Reference), ()>,
    /// Images that are signed, and what they list.
    signed: Memory<Digest, ()>,
    /// Images that were not signed when the upstream was asked.
    unsigned: Memory<Digest, Unsigned>,
    /// What it listed of what refers to something.
    referrers: referrers::Memory,
    /// Blobs that were not what they should be.
    wrong: Memory<Digest, upstream::Error>,
    /// Whether it could be asked a moment ago.
    pulse: Pulse<upstream::Error>,
    /// The trouble that it is in, for a human.
    trouble: ArcSwap<Option<upstream::Error>>,
}

impl Mirror {
    fn new(domain: &Domain, settings: MirrorSettings) -> Self {
        let rate = Arc::new(RateLimit::new(domain, &settings.name, &settings.upstream));
        Self {
            upstream: Upstream::in_turn(settings.upstream.clone(), Arc::<RateLimit>::clone(&rate)),
            rate,
            missing: Memory::new(),
            waiting: Memory::new(),
            kept: Memory::new(),
            signed: Memory::new(),
            unsigned: Memory::new(),
            referrers: referrers::memory(),
            wrong: Memory::new(),
            pulse: Pulse::new(),
            trouble: ArcSwap::default(),
            settings,
        }
    }

    /// What its upstream calls a repository.
    pub(super) fn calls(&self, name: &Name) -> Name {
        self.upstream.repository(name)
    }

    /// Whether somebody who names a repository of its upstream means this one.
    pub(super) fn means(&self, name: &Name, upstream: &Name) -> bool {
        self.calls(name) == *upstream || self.settings.upstream.meant(name) == *upstream
    }

    /// Why its upstream did not answer the last time it was asked; `None` if it did, or was not asked yet.
    #[must_use]
    pub fn trouble(&self) -> Option<upstream::Error> {
        Option::clone(&self.trouble.load())
    }
}

/// All mirrors. Their paths do not lie within one another.
#[derive(Clone, Debug, Default)]
pub struct Mirrors(Vec<Arc<Mirror>>);

impl Mirrors {
    /// These from now on; those that are configured as before stay with all that they know.
    pub(super) fn with(&self, domain: &Domain, settings: Vec<MirrorSettings>) -> Self {
        let kept = |settings: MirrorSettings| {
            let same = self.all().find(|mirror| mirror.settings == settings).cloned();
            same.unwrap_or_else(|| Arc::new(Mirror::new(domain, settings)))
        };
        Self(settings.into_iter().map(kept).collect())
    }

    /// Those of a registry that has no other, and whose database is not there.
    #[cfg(test)]
    pub(super) fn alone(settings: Vec<MirrorSettings>) -> Self {
        let meta = Arc::new(crate::meta::postgres::PostgresStore::unreachable());
        let (store, tasks) = (Arc::new(blobs::Memory::new()), crate::ops::tasks::Tasks::new());
        let domain = Domain::new(meta, store, super::Limits::default(), tasks);
        Self::default().with(&domain, settings)
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Mirror>> {
        self.0.iter()
    }
}

/// How a request to a mirror was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MirrorResult {
    /// From what was here; a tag may have been compared.
    Hit,
    /// From the upstream.
    Miss,
    /// From what was here, though it should have been compared.
    Stale,
    /// There is no such thing, as far as may be asked.
    Negative,
    /// Not at all.
    Error,
}

impl MirrorResult {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Stale, Self::Negative, Self::Error];

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::Error => "error",
        }
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::ManifestUnknown | Error::BlobUnknown | Error::NameUnknown | Error::Quarantined { .. } => {
                Self::Negative
            }
            _ => Self::Error,
        }
    }
}

/// Whether an upstream may be asked for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// As the mirror says.
    AsConfigured,
    /// As the mirror says, unless it did not answer a moment ago: others may have what is wanted.
    IfItAnswers,
    /// No: the request came from ourselves, over other mirrors.
    InALoop,
}

/// Why something was not fetched; several may be told.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// Because of the upstream.
    Upstream(upstream::Error),
    /// Because of us.
    Own(Arc<Error>),
}

impl From<upstream::Error> for Failure {
    fn from(error: upstream::Error) -> Self {
        Self::Upstream(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Upstream(error) => Self::Upstream(error),
            error => Self::Own(Arc::new(error)),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Upstream(error) => Self::Upstream(error),
            Failure::Own(error) => again(&error),
        }
    }
}

/// The same, for another who is told.
fn again(error: &Arc<Error>) -> Error {
    let shared = || Box::new(Shared(Arc::clone(error)));
    match &**error {
        Error::DatabaseAway(cause) => Error::DatabaseAway(cause.again()),
        Error::RebuildRequired => Error::RebuildRequired,
        Error::NotCompared => Error::NotCompared,
        Error::Stopping => Error::Stopping,
        Error::Overtaken => Error::Overtaken,
        Error::TooManyUploads => Error::TooManyUploads,
        Error::ManifestUnknown => Error::ManifestUnknown,
        Error::BlobUnknown => Error::BlobUnknown,
        Error::Quarantined { digest, until } => Error::Quarantined { digest: digest.clone(), until: *until },
        Error::Unsigned(unsigned) => Error::Unsigned(unsigned.clone()),
        Error::TagImmutable { tag, rule } => Error::TagImmutable { tag: tag.clone(), rule: rule.clone() },
        Error::StoreAway(_) => Error::StoreAway(blobs::Error::Unavailable {
            operation: "fetch",
            key: String::new(),
            source: shared(),
        }),
        _ => Error::Internal(shared()),
    }
}

/// An error of ours that several are told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Shared(Arc<Error>);

/// What all mirrors of a process share.
pub(super) struct Shelf {
    pub(super) mirrors: Arc<ArcSwap<Mirrors>>,
    manifests: Flights<(Name, Reference), Result<manifests::Found, Failure>>,
    referrers: Flights<(Name, Digest), Option<referrers::Known>>,
    fetches: Fetches,
    /// Memory for windows, in windows.
    windows: Permits,
    pub(super) metrics: MirrorMetrics,
}

impl Shelf {
    pub(super) fn new(metrics: MirrorMetrics) -> Self {
        Self {
            mirrors: Arc::default(),
            manifests: Flights::default(),
            referrers: Flights::default(),
            fetches: Fetches::default(),
            windows: Permits::new(fetch::WINDOWS),
            metrics,
        }
    }
}
