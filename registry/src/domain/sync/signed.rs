// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether an image is signed as the mirror asks, before anything of it is copied. A signature that is here spares
//! asking the upstream.

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Digest, Reference};

use super::super::proofs::{Held, collected, if_there, referrers_of};
use super::told::Fault;
use super::{At, Run};
use crate::signatures::{Referrer, Source, Verdict, seek};
use crate::upstream::{self, Span};

/// Signatures at the upstream of a run.
struct Sought<'a> {
    run: &'a Run<'a>,
    at: &'a At,
}

#[async_trait]
impl Source for Sought<'_> {
    type Error = upstream::Error;

    async fn referrers(&self, image: &Digest) -> Result<Vec<Referrer>, upstream::Error> {
        let asked = || self.run.upstream.referrers(&self.at.upstream, image, None);
        self.run.ask(asked).await.map(referrers_of)
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Bytes>, upstream::Error> {
        let asked = || self.run.upstream.manifest(&self.at.upstream, reference);
        Ok(if_there(self.run.ask(asked).await)?.map(|manifest| manifest.bytes))
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, upstream::Error> {
        let asked = || async {
            collected(self.run.upstream.blob(&self.at.upstream, digest, Span::default()).await?).await
        };
        Ok(if_there(self.run.ask(asked).await)?.flatten())
    }
}

impl Run<'_> {
    /// Refuses an image that is not signed with one of the mirror's keys, if it has any.
    pub(super) async fn check_signed(&self, at: &At, image: Digest) -> Result<(), Fault> {
        let Some(keys) = &self.asked.keys else { return Ok(()) };
        let held = Held::new(self.domain, &at.here);
        if let Verdict::Signed(_) = seek(&held, &image, keys).await? {
            return Ok(());
        }
        match seek(&Sought { run: self, at }, &image, keys).await? {
            Verdict::Signed(_) => Ok(()),
            Verdict::Unsigned(unsigned) => Err(Fault::Unsigned(unsigned)),
        }
    }
}
