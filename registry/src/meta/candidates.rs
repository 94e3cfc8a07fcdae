// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that keeps what waits for its promotion.
//!
//! Nothing of it is in the bucket: what is lost with the database is found again among the tags, by what is not
//! promoted. So no epoch guards it, and who takes a candidate looks whether its tag is what it was.

use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};

use super::Error;

/// An artifact that waits for its promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionCandidate {
    /// By which policy.
    pub policy: String,
    /// Where it is.
    pub repository: Name,
    /// The tag that is promoted.
    pub tag: Tag,
    /// What the tag named when it began to wait.
    pub digest: Digest,
    /// `sha256:` of the policy's specification.
    pub hash: String,
}

/// A candidate that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenCandidate {
    /// Its row.
    pub id: i64,
    /// What waits.
    pub candidate: PromotionCandidate,
    /// For how long by now.
    pub waiting: Duration,
    /// How often it was taken, with this time.
    pub tries: u32,
}

/// An artifact whose promotion somebody has asked for, while its gates do not let it pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedPromotion<'a> {
    /// The request, as who asked names it.
    pub id: &'a str,
    /// By which policy.
    pub policy: &'a str,
    /// `sha256:` of its specification.
    pub hash: &'a str,
    /// Where it is.
    pub repository: &'a Name,
    /// The tag that was asked for.
    pub tag: Option<&'a Tag>,
    /// What is to be promoted.
    pub digest: Digest,
}

/// The tags of a repository that a policy may promote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpromoted<'a> {
    /// The repository.
    pub repository: &'a Name,
    /// The policy.
    pub policy: &'a str,
    /// `sha256:` of its specification.
    pub hash: &'a str,
    /// Where it promotes them to.
    pub target: &'a Name,
}

/// What waits for its promotion.
#[async_trait]
pub trait Candidates: Send + Sync {
    /// From now on the tag waits, and is due at once; what it named before waits no longer. One that waits already for
    /// the same specification goes on waiting.
    async fn await_promotion(&self, candidate: &PromotionCandidate) -> Result<(), Error>;

    /// Whatever of the repository waits with this digest is due at once: something came that refers to it.
    async fn hasten_promotions(&self, repository: &Name, digest: &Digest) -> Result<(), Error>;

    /// Takes what waits for one of these policies and has been due for the longest. Nobody else takes it for `lease`.
    async fn take_candidate(
        &self,
        policies: &[String],
        lease: Duration,
    ) -> Result<Option<TakenCandidate>, Error>;

    /// How soon something is due that waits for one of these policies.
    async fn next_candidate(&self, policies: &[String]) -> Result<Option<Duration>, Error>;

    /// It is due `after` this time. If it was hastened since it was taken, or its tag moved, it is due already.
    async fn postpone_candidate(&self, taken: &TakenCandidate, after: Duration) -> Result<(), Error>;

    /// It waits no longer, unless its tag moved.
    async fn end_candidate(&self, taken: &TakenCandidate) -> Result<(), Error>;

    /// What was asked for counts as waiting for so long, if nobody says that it is over. Nobody takes it.
    async fn keep_requested(&self, requested: &RequestedPromotion<'_>, most: Duration) -> Result<(), Error>;

    /// What was asked for by this request is over.
    async fn end_requested(&self, id: &str) -> Result<(), Error>;

    /// Whatever waits for another policy than these waits no longer; nor what was asked for and whose time is over.
    async fn forget_candidates(&self, policies: &[String]) -> Result<(), Error>;

    /// Up to `limit` tags in byte order, with what they name, that the policy has not promoted to its target and has not
    /// judged by these rules.
    async fn unpromoted(
        &self,
        wanted: &Unpromoted<'_>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Tag, Digest)>, Error>;
}
