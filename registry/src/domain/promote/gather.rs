// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is to be known about an artifact before its gates can be judged. Reads only.

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Digest, Name, Reference};

use super::super::proofs::Held;
use super::super::reconcile::Unit;
use super::super::{Domain, Error};
use super::PromotionRequest;
use super::gates::{Found, Gate, Since, Wanted};
use crate::labels::{self, LONGEST_CONFIG};
use crate::meta::LedgerEntry;
use crate::signatures::{Keys, Source as _, Verdict, attestations, seek};

/// Attestations up to this length are looked at, in bytes: lists of components are long.
const LONGEST_ATTESTATION: u64 = 16 << 20;
/// Promotions of one digest into one repository that are looked at.
const PROMOTIONS: u32 = 100;

/// What is promoted, as its labels are read.
struct Promotable<'a> {
    domain: &'a Domain,
    repository: &'a Name,
}

#[async_trait]
impl labels::Source for Promotable<'_> {
    type Error = Error;

    async fn manifest(&self, digest: Digest) -> Result<Option<(String, Bytes)>, Error> {
        let found = self.domain.promotable_manifest(self.repository, digest).await?;
        Ok(found.map(|manifest| (manifest.media_type, manifest.body.unwrap_or_default())))
    }

    async fn config(&self, digest: Digest) -> Result<Option<Bytes>, Error> {
        let held = Held { most_bytes: LONGEST_CONFIG, ..Held::new(self.domain, self.repository) };
        if let Some(bytes) = held.blob(&digest).await? {
            return Ok(Some(bytes));
        }
        self.domain.fetch_promotable(self.repository, digest).await?;
        held.blob(&digest).await
    }
}

impl Domain {
    /// What `gate` asks for about the artifact, as it is in `repository`.
    pub(super) async fn evidence(
        &self,
        gate: &Gate,
        repository: &Name,
        digest: Digest,
        request: &PromotionRequest,
    ) -> Result<Found, Error> {
        match &gate.wants {
            Wanted::Signature { keys, required } => {
                self.signatures(repository, digest, keys, *required).await
            }
            Wanted::Attestation { predicate_type, keys, .. } => {
                self.attested(repository, digest, predicate_type, keys).await
            }
            Wanted::MinimumAge { since: Since::Pushed, .. } => {
                Ok(Found::Time(self.pushed_at(repository, digest).await?))
            }
            Wanted::MinimumAge { since: Since::PromotedToSource, .. } => {
                let promotions = self.promotions(repository, digest).await?;
                Ok(Found::Time(promotions.first().map(|newest| newest.at)))
            }
            Wanted::Approval { .. } => Ok(Found::Approvals {
                given: request.approvals.clone(),
                requested_by: request.requested_by.clone(),
                digest,
            }),
            Wanted::Labels(_) => {
                let artifact = Promotable { domain: self, repository };
                Ok(Found::Labels(labels::labels(&artifact, digest).await?))
            }
            Wanted::PromotedBy(_) => Ok(Found::Promotions(self.promotions(repository, digest).await?)),
        }
    }

    async fn signatures(
        &self,
        repository: &Name,
        digest: Digest,
        keys: &Keys,
        required: usize,
    ) -> Result<Found, Error> {
        let held = Held::new(self, repository);
        let (mut signed, mut flaw) = (Vec::new(), None);
        for (name, key) in keys.each() {
            match seek(&held, &digest, &key).await? {
                Verdict::Signed(proof) => {
                    let of = match proof.reference {
                        Reference::Digest(digest) => digest,
                        Reference::Tag(_) => Digest::of(digest.algorithm(), &proof.manifest),
                    };
                    signed.push((name.to_owned(), of));
                }
                Verdict::Unsigned(crate::signatures::Unsigned::Missing(_)) => {}
                Verdict::Unsigned(unsigned) => flaw = Some(unsigned.to_string()),
            }
            if signed.len() >= required {
                break;
            }
        }
        Ok(Found::Signatures { signed, flaw })
    }

    async fn attested(
        &self,
        repository: &Name,
        digest: Digest,
        predicate_type: &str,
        keys: &Keys,
    ) -> Result<Found, Error> {
        let held = Held { most_bytes: LONGEST_ATTESTATION, ..Held::new(self, repository) };
        let attested = attestations(&held, &digest, predicate_type, keys).await?;
        let mut counted = Vec::with_capacity(attested.counted.len());
        for attestation in attested.counted {
            // One that does not say when it was made was made before it came here.
            let time = match attestation.time {
                Some(time) => Some(time),
                None => self.pushed_at(repository, attestation.manifest).await?,
            };
            counted.push((attestation, time.unwrap_or_default()));
        }
        Ok(Found::Attestations { counted, flaw: attested.flaw })
    }

    /// When a manifest came to the repository, in milliseconds since 1970.
    async fn pushed_at(&self, repository: &Name, digest: Digest) -> Result<Option<u64>, Error> {
        let unit = [Unit::Manifest(repository.clone(), digest)];
        let wanted = [(repository.clone(), digest)];
        let mut rows = self.ask_database(&unit, |epoch| self.meta.manifests(epoch, &wanted)).await?;
        Ok(rows.pop().flatten().map(|row| row.generation.milliseconds()))
    }

    /// Promotions into the repository, newest first.
    pub(super) async fn promotions(
        &self,
        repository: &Name,
        digest: Digest,
    ) -> Result<Vec<LedgerEntry>, Error> {
        // A promotion whose record was not compared yet is not known yet.
        self.trust.trusted().await?;
        Ok(self.meta.promotions_into(repository, &digest, PROMOTIONS).await?)
    }
}
