// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What an upstream says of a tag only since a short time is not answered for it yet.
//!
//! Replicas agree in the database on when a digest was seen first. While it is held back, the tag is what it was, with a
//! warning; a tag that was never here is not there yet. By its digest anything is answered.
//! Assumes: a digest that the upstream took back and gives again is new again.

use std::time::Duration;

use jiff::Timestamp;
use stowage_oci::{Digest, Reference, Tag};

use super::super::{Domain, Error, ManifestAnswer};
use super::names::Mirrored;
use super::{Failure, MirrorResult};
use crate::ops::clock;

impl Domain {
    /// Notes what a tag is at the upstream. Whether it stays what it was here, `held`, for now; an error if it was
    /// nothing.
    pub(super) async fn is_held_back(
        &self,
        at: &Mirrored,
        tag: &Tag,
        now: &Digest,
        held: Option<&Digest>,
    ) -> Result<bool, Failure> {
        let Some(quarantine) = at.mirror.settings.cache.quarantine else { return Ok(false) };
        let seen = self.meta.note_seen(&at.stored, tag, now).await.map_err(Error::from)?;
        if held == Some(now) || seen >= quarantine {
            return Ok(false);
        }
        if held.is_some() {
            self.note_checked(at, tag).await;
            return Ok(true);
        }
        let until = after(quarantine.saturating_sub(seen));
        let reference = Reference::Tag(tag.clone());
        let lasts = at.mirror.settings.cache.negative_ttl;
        at.mirror.waiting.put(at.key(&reference), (*now, until), lasts);
        Err(Error::Quarantined { digest: Box::new(*now), until }.into())
    }

    /// A tag that counts as current; with a warning, while the upstream has another that is held back.
    pub(super) async fn held_back(
        &self,
        at: &Mirrored,
        tag: &Tag,
        held: ManifestAnswer,
    ) -> (Result<ManifestAnswer, Error>, MirrorResult) {
        let Some(quarantine) = at.mirror.settings.cache.quarantine else {
            return (Ok(held), MirrorResult::Hit);
        };
        // Nobody knows without the database: the tag is what it was all the same.
        match self.meta.seen(&at.stored, tag).await {
            Ok(Some((digest, ago))) if digest != held.digest && ago < quarantine => {
                (Ok(ManifestAnswer { stale: true, ..held }), MirrorResult::Stale)
            }
            Ok(_) | Err(_) => (Ok(held), MirrorResult::Hit),
        }
    }
}

impl Mirrored {
    /// Why a tag is not there yet, as it was found a moment ago.
    pub(super) fn quarantined(&self, reference: &Reference) -> Option<Error> {
        let (digest, until) = self.mirror.waiting.get(&self.key(reference))?;
        Some(Error::Quarantined { digest: Box::new(digest), until })
    }
}

/// So much later than now, in whole seconds.
fn after(left: Duration) -> Timestamp {
    let now = Timestamp::from_second(i64::try_from(clock::seconds()).unwrap_or_default()).unwrap_or_default();
    now.saturating_add(jiff::SignedDuration::from_secs(i64::try_from(left.as_secs()).unwrap_or(i64::MAX)))
        .unwrap_or(Timestamp::MAX)
}
