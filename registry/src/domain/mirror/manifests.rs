// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Manifests and tags of a mirror.
//!
//! By digest: what is stored is answered, and nobody asked. By tag: within its TTL likewise; then one of all replicas
//! asks the upstream by HEAD, and for the manifest only if the tag moved to one that is not here. While the upstream
//! fails or refuses us, a tag is answered as it was, for as long as the mirror says; that it is gone ends it. Nothing is
//! answered and no tag moved that is not signed as the mirror asks ([`super::signed`]). A tag that is immutable here is
//! not moved and not ended: it is answered as it was, with a warning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use stowage_oci::{Digest, Manifest, Reference, Tag};
use uuid::Uuid;

use super::super::push::{Pusher, facts};
use super::super::{Domain, Error, ManifestAnswer};
use super::names::Mirrored;
use super::{Asking, Cache, Failure, MirrorResult};
use crate::meta::{self, Claim, Fetched};
use crate::signatures::subject_of;
use crate::upstream::{self, Kind};

/// For how long one replica asks about a tag before another may.
const LEASE: Duration = Duration::from_secs(30);
/// How long a replica waits for another that asks.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client waits for what should be compared before it is told what is here.
pub(super) const HELD_PATIENCE: Duration = Duration::from_secs(5);

/// What asking came to.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// It is here.
    Stored,
    /// It could not be stored.
    Loose(Arc<upstream::Manifest>),
}

/// An answer, and where it comes from.
type Answer = (Result<ManifestAnswer, Error>, MirrorResult);

impl Domain {
    /// The manifest that `reference` names in a repository of a mirror.
    pub async fn mirrored_manifest(
        &self,
        at: &Mirrored,
        reference: &Reference,
        head: bool,
        asking: Asking,
    ) -> Answer {
        let held = match self.manifest(&at.stored, reference, head).await {
            Ok(held) => held,
            Err(Error::ManifestUnknown) => return self.missing_manifest(at, reference, head, asking).await,
            Err(error) => return failed(error),
        };
        match (self.admits(at, reference, held.digest, asking).await, reference) {
            (Ok(()), _) => {}
            // What the tag is by now may be signed.
            (Err(Error::Unsigned(_)), Reference::Tag(_))
                if at.may_ask(asking) && !at.leaves_out(reference) =>
            {
                return self.missing_manifest(at, reference, head, asking).await;
            }
            (Err(error), _) => return failed(error),
        }
        match reference {
            Reference::Tag(tag) if at.may_ask(asking) && !held.degraded && !at.leaves_out(reference) => {
                self.held_tag(at, tag, held, head).await
            }
            Reference::Tag(_) | Reference::Digest(_) => (Ok(held), MirrorResult::Hit),
        }
    }

    async fn missing_manifest(
        &self,
        at: &Mirrored,
        reference: &Reference,
        head: bool,
        asking: Asking,
    ) -> Answer {
        if let Err(error) = at.ensure_asking(asking, Error::ManifestUnknown) {
            return failed(error);
        }
        if at.leaves_out(reference) {
            return failed(Error::ManifestUnknown);
        }
        if at.mirror.missing.get(&at.key(reference)).is_some() {
            return failed(Error::ManifestUnknown);
        }
        if let Some(error) = at.quarantined(reference) {
            return failed(error);
        }
        match self.joined(at, reference, None).await {
            Ok(found) => match self.found(at, reference, head, found).await {
                Ok(answer) => (Ok(answer), MirrorResult::Miss),
                Err(error) => failed(error),
            },
            Err(failure) => failed(of_manifest(failure)),
        }
    }

    /// A tag that is here: compared if it should be.
    async fn held_tag(&self, at: &Mirrored, tag: &Tag, held: ManifestAnswer, head: bool) -> Answer {
        let cache = &at.mirror.settings.cache;
        let reference = Reference::Tag(tag.clone());
        let key = at.key(&reference);
        let is_immutable = self.is_immutable(at, tag);
        let as_it_was = |held| (Ok(ManifestAnswer { held_back: true, ..held }), MirrorResult::Stale);
        if is_immutable && at.mirror.kept.get(&key).is_some() {
            return as_it_was(held);
        }
        let checked = self.meta.tag_checked(&at.stored, tag).await.unwrap_or_default();
        let is_fresh_where = |is_scarce| is_fresh(checked, cache, is_scarce);
        if is_fresh_where(false) || is_fresh_where(true) && at.mirror.rate.is_scarce().await {
            return self.held_back(at, tag, held).await;
        }
        if checked.is_none() {
            // Nobody knows any more: from now on it counts as just too old.
            drop(self.meta.note_tag_checked(&at.stored, tag, cache.tag_ttl).await);
        }
        let asked = match at.mirror.pulse.trouble() {
            Some(error) => Err(Failure::Upstream(error)),
            None => self.asked_soon(at, &reference, held.digest).await,
        };
        match asked {
            Ok(found) => match self.found(at, &reference, head, found).await {
                Ok(now) if now.digest == held.digest => self.held_back(at, tag, now).await,
                Ok(now) => (Ok(now), MirrorResult::Miss),
                Err(error) => failed(error),
            },
            Err(failure) if is_immutable && is_of_its_tag(&failure) => {
                at.mirror.kept.put(key, (), cache.tag_ttl);
                as_it_was(held)
            }
            Err(Failure::Upstream(error)) if error.kind == Kind::NotFound => failed(Error::ManifestUnknown),
            // As long as it takes: what is here is in order.
            Err(Failure::Own(error)) if matches!(*error, Error::Unsigned(_) | Error::TagImmutable { .. }) => {
                as_it_was(held)
            }
            Err(_) if may_be_stale(checked, cache) => {
                (Ok(ManifestAnswer { stale: true, ..held }), MirrorResult::Stale)
            }
            Err(failure) => failed(of_manifest(failure)),
        }
    }

    /// Asks, but does not wait for long.
    async fn asked_soon(&self, at: &Mirrored, reference: &Reference, held: Digest) -> Result<Found, Failure> {
        let asked = self.joined(at, reference, Some(held));
        let late = |_elapsed| Failure::Upstream(at.mirror.upstream.late());
        tokio::time::timeout(HELD_PATIENCE, asked).await.map_err(late)?
    }

    /// Asks, together with all who want to know.
    async fn joined(
        &self,
        at: &Mirrored,
        reference: &Reference,
        held: Option<Digest>,
    ) -> Result<Found, Failure> {
        let (domain, place, wanted) = (self.clone(), at.clone(), reference.clone());
        let work = || async move { domain.asked(&place, &wanted, held).await };
        let outcome = self.shelf.manifests.join(&self.tasks, at.key(reference), work).await;
        outcome.unwrap_or_else(|| Err(Error::Stopping.into()))
    }

    /// The answer after asking.
    async fn found(
        &self,
        at: &Mirrored,
        reference: &Reference,
        head: bool,
        found: Found,
    ) -> Result<ManifestAnswer, Error> {
        match found {
            Found::Stored => {
                let stored = self.manifest(&at.stored, reference, head).await?;
                // Another replica may have brought it, by another configuration.
                self.admits(at, reference, stored.digest, Asking::AsConfigured).await?;
                Ok(stored)
            }
            Found::Loose(manifest) => Ok(ManifestAnswer {
                repository: at.stored.clone(),
                digest: manifest.digest,
                media_type: manifest.document.media_type.clone(),
                size: manifest.bytes.len() as u64,
                body: (!head).then(|| manifest.bytes.clone()),
                tag_version: None,
                degraded: false,
                stale: false,
                held_back: false,
            }),
        }
    }

    /// Asks the upstream, unless another replica does.
    async fn asked(
        &self,
        at: &Mirrored,
        reference: &Reference,
        held: Option<Digest>,
    ) -> Result<Found, Failure> {
        let what = format!("manifest {} {} {reference}", at.mirror.settings.name, at.stored);
        let owner = Uuid::new_v4();
        if self.awaits_another(at, reference, &what, owner).await {
            return Ok(Found::Stored);
        }
        let begun = Instant::now();
        let outcome = self.fetched(at, reference, held).await;
        if let Err(error) = self.meta.end_fetch(&what, owner).await {
            tracing::debug!(%error, "a lease was not given back");
        }
        match &outcome {
            Err(Failure::Upstream(error)) => self.note_failure(at, reference, begun, error).await,
            Ok(_) => at.mirror.pulse.answered(begun),
            Err(Failure::Own(_)) => {}
        }
        outcome
    }

    /// Waits while another replica asks; whether that brought it. Else it is ours to ask.
    async fn awaits_another(&self, at: &Mirrored, reference: &Reference, what: &str, owner: Uuid) -> bool {
        let begun = Instant::now();
        loop {
            match self.meta.claim_fetch(what, owner, Fetched::default(), LEASE).await {
                Ok(Claim::Theirs(_)) if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Ok(Claim::Ours) if begun.elapsed() > PAUSE => {
                    // Another has ended: perhaps with what we want.
                    let is_here = self.is_here_since(at, reference, begun).await;
                    if is_here && let Err(error) = self.meta.end_fetch(what, owner).await {
                        tracing::debug!(%error, "a lease was not given back");
                    }
                    return is_here;
                }
                Ok(_) | Err(_) => return false,
            }
        }
    }

    async fn is_here_since(&self, at: &Mirrored, reference: &Reference, begun: Instant) -> bool {
        if self.manifest(&at.stored, reference, true).await.is_err() {
            return false;
        }
        match reference {
            Reference::Digest(_) => true,
            Reference::Tag(tag) => {
                let checked = self.meta.tag_checked(&at.stored, tag).await;
                matches!(checked, Ok(Some(ago)) if ago <= begun.elapsed())
            }
        }
    }

    async fn fetched(
        &self,
        at: &Mirrored,
        reference: &Reference,
        held: Option<Digest>,
    ) -> Result<Found, Failure> {
        let mirror = &at.mirror;
        let (wanted, tag) = match reference {
            Reference::Digest(_) => (reference.clone(), None),
            Reference::Tag(tag) => match held {
                None if mirror.settings.cache.quarantine.is_none() => (reference.clone(), Some(tag)),
                held => {
                    let head = mirror.upstream.manifest_head(&at.upstream, reference);
                    let now = self.ask_upstream(mirror, head).await?.digest;
                    // What it may not become is not fetched.
                    if now.is_some() && held.is_some() && now != held {
                        self.ensure_movable(at, tag)?;
                    }
                    if let Some(now) = &now
                        && self.is_held_back(at, tag, now, held.as_ref()).await?
                    {
                        return Ok(Found::Stored);
                    }
                    match now {
                        Some(now) if Some(now) == held || self.retags(at, tag, &now).await? => {
                            self.note_checked(at, tag).await;
                            return Ok(Found::Stored);
                        }
                        Some(now) => (Reference::Digest(now), Some(tag)),
                        None => (reference.clone(), Some(tag)),
                    }
                }
            },
        };
        let manifest = self.manifest_of(at, &wanted, reference).await?;
        self.shelf.metrics.received(&mirror.settings.name, manifest.bytes.len() as u64);
        if let Some(tag) = tag
            && self.is_held_back(at, tag, &manifest.digest, held.as_ref()).await?
        {
            return Ok(Found::Stored);
        }
        let content = (&manifest.document, &manifest.bytes);
        self.admits_content(at, reference, manifest.digest, content, Asking::AsConfigured).await?;
        match self.keep_manifest(at, &manifest.document, manifest.digest, &manifest.bytes, tag).await {
            Ok(()) => {
                if let Some(tag) = tag {
                    self.note_checked(at, tag).await;
                }
                Ok(Found::Stored)
            }
            Err(error @ (Error::DatabaseAway(_) | Error::StoreAway(_) | Error::RebuildRequired)) => {
                tracing::warn!(repo.name = %at.stored, %error, "a fetched manifest is not stored");
                Ok(Found::Loose(Arc::new(manifest)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest by what `reference` was a moment ago, `wanted`; if that is gone since, by what it is now.
    async fn manifest_of(
        &self,
        at: &Mirrored,
        wanted: &Reference,
        reference: &Reference,
    ) -> Result<upstream::Manifest, upstream::Error> {
        let upstream = &at.mirror.upstream;
        let found = self.ask_upstream(&at.mirror, upstream.manifest(&at.upstream, wanted)).await;
        match found {
            Err(error) if error.kind == Kind::NotFound && wanted != reference => {
                self.ask_upstream(&at.mirror, upstream.manifest(&at.upstream, reference)).await
            }
            found => found,
        }
    }

    fn is_immutable(&self, at: &Mirrored, tag: &Tag) -> bool {
        self.immutability().covering(&at.stored, tag).is_some()
    }

    fn ensure_movable(&self, at: &Mirrored, tag: &Tag) -> Result<(), Error> {
        let rules = self.immutability();
        match rules.covering(&at.stored, tag) {
            Some(_) => Err(rules.refusal(&at.stored, tag.clone())),
            None => Ok(()),
        }
    }

    /// Moves a tag to a manifest that is here already. `false`: it is not.
    async fn retags(&self, at: &Mirrored, tag: &Tag, digest: &Digest) -> Result<bool, Failure> {
        let stored = match self.manifest(&at.stored, &Reference::Digest(*digest), false).await {
            Ok(stored) => stored,
            Err(Error::ManifestUnknown) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(body) = stored.body else { return Ok(false) };
        let document = Manifest::parse(&body, Some(&stored.media_type)).map_err(Error::from)?;
        let reference = Reference::Tag(tag.clone());
        self.admits_content(at, &reference, *digest, (&document, &body), Asking::AsConfigured).await?;
        self.keep_manifest(at, &document, *digest, &body, Some(tag)).await?;
        Ok(true)
    }

    /// Stores a manifest of the upstream, and moves the tag to it.
    pub(super) async fn keep_manifest(
        &self,
        at: &Mirrored,
        document: &Manifest,
        digest: Digest,
        body: &Bytes,
        tag: Option<&Tag>,
    ) -> Result<(), Error> {
        if self.outage.is_on() {
            return Err(Error::DatabaseAway(meta::Error::away()));
        }
        let awaited = awaited(document, body);
        let facts = facts(digest, document.clone(), body);
        let tags: Vec<Tag> = tag.cloned().into_iter().collect();
        self.push_until_published(&at.stored, &facts, &tags, body, Pusher::Awaiting(&awaited)).await
    }

    pub(super) async fn note_checked(&self, at: &Mirrored, tag: &Tag) {
        if let Err(error) = self.meta.note_tag_checked(&at.stored, tag, Duration::ZERO).await {
            tracing::debug!(%error, "that a tag was checked is not noted");
        }
    }

    async fn note_failure(
        &self,
        at: &Mirrored,
        reference: &Reference,
        begun: Instant,
        error: &upstream::Error,
    ) {
        let mirror = &at.mirror;
        mirror.note_pulse(begun, error);
        if error.kind != Kind::NotFound {
            return;
        }
        mirror.missing.put(at.key(reference), (), mirror.settings.cache.negative_ttl);
        if let Reference::Tag(tag) = reference {
            self.end_tag(at, tag).await;
        }
    }

    /// The upstream does not have the tag any more: nor do we, unless it is immutable here.
    async fn end_tag(&self, at: &Mirrored, tag: &Tag) {
        if self.is_immutable(at, tag) {
            tracing::debug!(repo.name = %at.stored, tag.name = %tag, "the upstream has no such tag; here it stays");
            return;
        }
        match self.delete_tag_for(&at.stored, tag, Duration::ZERO).await {
            Ok(()) => tracing::info!(repo.name = %at.stored, tag.name = %tag, "the upstream ended a tag"),
            Err(Error::ManifestUnknown | Error::NameUnknown) => {}
            Err(error) => tracing::warn!(repo.name = %at.stored, tag.name = %tag, %error, "tag not ended"),
        }
    }
}

impl Mirrored {
    pub(super) fn key(&self, reference: &Reference) -> (stowage_oci::Name, Reference) {
        (self.stored.clone(), reference.clone())
    }

    pub(super) fn may_ask(&self, asking: Asking) -> bool {
        self.mirror.settings.asks_upstream && asking != Asking::InALoop
    }

    /// Whether it is a tag in place of a referrer, of a mirror that leaves these out.
    pub(super) fn leaves_out(&self, reference: &Reference) -> bool {
        let Reference::Tag(tag) = reference else { return false };
        !self.mirror.settings.with_referrers && subject_of(tag).is_some()
    }

    /// `unknown` where the upstream may not be asked.
    pub(super) fn ensure_asking(&self, asking: Asking, unknown: Error) -> Result<(), Error> {
        match (self.mirror.settings.asks_upstream, asking) {
            (true, Asking::AsConfigured) => Ok(()),
            (true, Asking::IfItAnswers) => {
                self.mirror.pulse.trouble().map_or(Ok(()), |error| Err(Error::Upstream(error)))
            }
            (true, Asking::InALoop) => Err(Error::MirrorLoop),
            (false, _) => Err(unknown),
        }
    }
}

fn failed(error: Error) -> Answer {
    let result = MirrorResult::of_error(&error);
    (Err(error), result)
}

/// What we are refused may exist for others: to our clients it does not.
fn of_manifest(failure: Failure) -> Error {
    match failure {
        Failure::Upstream(error) if matches!(error.kind, Kind::NotFound | Kind::Refused(_)) => {
            Error::ManifestUnknown
        }
        failure => failure.into(),
    }
}

/// Whether the tag is something else at the upstream, or nothing.
fn is_of_its_tag(failure: &Failure) -> bool {
    match failure {
        Failure::Upstream(error) => error.kind == Kind::NotFound,
        Failure::Own(error) => matches!(**error, Error::TagImmutable { .. }),
    }
}

/// Whether a tag need not be compared. Where few requests are left, it may be ten times as old.
pub(super) fn is_fresh(checked: Option<Duration>, cache: &Cache, is_scarce: bool) -> bool {
    let ttl = cache.tag_ttl * if is_scarce { 10 } else { 1 };
    checked.is_some_and(|ago| ago < ttl)
}

/// Whether a tag may be answered though it could not be compared. If nobody knows how old it is, it may.
pub(super) fn may_be_stale(checked: Option<Duration>, cache: &Cache) -> bool {
    !cache.stale_for.is_zero()
        && checked.is_none_or(|ago| ago < cache.tag_ttl.saturating_add(cache.stale_for))
}

/// The blobs of a manifest with their lengths; 0 where it does not say.
fn awaited(document: &Manifest, body: &Bytes) -> Vec<(Digest, u64)> {
    #[derive(Deserialize, Default)]
    struct Sizes {
        config: Option<Size>,
        #[serde(default)]
        layers: Vec<Size>,
    }
    #[derive(Deserialize)]
    struct Size {
        digest: Digest,
        #[serde(default)]
        size: u64,
    }
    // It was read before, by a stricter reader.
    let sizes: Sizes = serde_json::from_slice(body).unwrap_or_default();
    let told = |digest: &Digest| {
        let mut descriptors = sizes.config.iter().chain(&sizes.layers);
        descriptors.find(|descriptor| descriptor.digest == *digest).map_or(0, |descriptor| descriptor.size)
    };
    document.blobs.iter().map(|digest| (*digest, told(digest))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const CACHE: Cache =
        Cache { tag_ttl: MINUTE, negative_ttl: MINUTE, stale_for: Duration::from_hours(1), quarantine: None };

    #[test]
    fn w874_f19_a_tag_is_fresh_for_its_ttl_and_longer_where_requests_are_scarce() {
        let (young, old) = (Some(MINUTE / 2), Some(2 * MINUTE));
        assert!(is_fresh(young, &CACHE, false) && !is_fresh(old, &CACHE, false));
        assert!(is_fresh(old, &CACHE, true) && !is_fresh(Some(10 * MINUTE), &CACHE, true));
        assert!(!is_fresh(None, &CACHE, true), "nobody knows");
    }

    #[test]
    fn o11_without_a_ttl_every_pull_compares() {
        let always = Cache { tag_ttl: Duration::ZERO, ..CACHE };
        assert!(!is_fresh(Some(Duration::ZERO), &always, true));
    }

    #[test]
    fn w872_a_tag_may_be_stale_for_so_long() {
        assert!(may_be_stale(Some(60 * MINUTE), &CACHE) && may_be_stale(None, &CACHE));
        assert!(!may_be_stale(Some(61 * MINUTE), &CACHE));
        let never = Cache { stale_for: Duration::ZERO, ..CACHE };
        assert!(!may_be_stale(Some(MINUTE), &never) && !may_be_stale(None, &never));
    }
}
