// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What replicas share about other registries.
//!
//! Nothing here carries safety: it spares upstreams. All of it may be lost, and two replicas may do the same.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::{Error, TagState};

/// The state of mirrors.
#[async_trait]
pub trait Mirroring: Send + Sync {
    /// How long ago the upstream said what this tag is. `None`: nobody knows.
    async fn tag_checked(&self, repository: &Name, tag: &Tag) -> Result<Option<Duration>, Error>;

    /// The upstream said so `ago`; an earlier time than is known changes nothing. Nor does a repository that does
    /// not exist.
    async fn note_tag_checked(&self, repository: &Name, tag: &Tag, ago: Duration) -> Result<(), Error>;

    /// Up to `limit` tags of the repository in byte order after `after`, deleted ones that still rest among them.
    async fn tag_states(
        &self,
        repository: &Name,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagState>, Error>;

    /// What the upstream says that a tag is, from now on: how long ago it said so first, without another in between.
    async fn note_seen(&self, repository: &Name, tag: &Tag, digest: &Digest) -> Result<Duration, Error>;

    /// What it said last, and how long ago it said so first. `None`: nobody noted it.
    async fn seen(&self, repository: &Name, tag: &Tag) -> Result<Option<(Digest, Duration)>, Error>;

    /// The length of a blob that a live manifest of the repository lists, stored or not; 0 where it was not told.
    async fn awaited_blob(&self, repository: &Name, digest: &Digest) -> Result<Option<u64>, Error>;

    /// Takes the fetch of `what` for `lease`, or keeps it, and says how far it is.
    async fn claim_fetch(
        &self,
        what: &str,
        owner: Uuid,
        progress: Fetched,
        lease: Duration,
    ) -> Result<Claim, Error>;

    /// Gives a fetch up, if it is ours.
    async fn end_fetch(&self, what: &str, owner: Uuid) -> Result<(), Error>;

    /// What is known of how often an upstream may be asked.
    async fn upstream_limits(&self, upstream: &str) -> Result<UpstreamLimits, Error>;

    /// Takes turns to ask an upstream. `None`: it wants to be left alone, or there is none soon enough. Turns of all
    /// who take them do not overlap, and those that nobody took are over.
    async fn take_turns(&self, upstream: &str, wanted: TurnsWanted) -> Result<Option<TurnsTaken>, Error>;

    /// Notes what an upstream said; the later end of a pause counts.
    async fn note_upstream_limits(&self, upstream: &str, limits: NewLimits) -> Result<(), Error>;
}

/// How far a fetch is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// What is here.
    pub done: u64,
    /// What there is; 0 while that is not known.
    pub total: u64,
}

/// Whose a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Ours.
    Ours,
    /// Somebody else's, who is so far.
    Theirs(Fetched),
}

/// How often an upstream may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Not before so long.
    pub paused: Option<Duration>,
    /// For how long there are few requests left.
    pub scarce: Option<Duration>,
    /// For how long all turns are taken.
    pub busy: Option<Duration>,
}

/// Turns to ask an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnsWanted {
    /// How many.
    pub count: u32,
    /// From one to the next.
    pub pace: Duration,
    /// In how long the first must be.
    pub within: Duration,
}

/// Turns that were taken. They follow one another at the pace that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnsTaken {
    /// In how long the first is.
    pub first_in: Duration,
    /// For how long there are few requests left.
    pub scarce: Option<Duration>,
}

/// What an upstream said about how often it may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewLimits {
    /// Not before so long.
    pub pause: Option<Duration>,
    /// For how long there are few requests left; zero: there are enough.
    pub scarce_for: Option<Duration>,
}
