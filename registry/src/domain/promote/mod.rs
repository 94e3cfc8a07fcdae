// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotion: an artifact of one repository comes to another, under a tag, when the gates of a policy let it.
//!
//! Pin the digest → ask the gates → bring what it lists and what refers to it → push it with its tag and the record of
//! the ledger, under one intent. The target is always a copy: links and manifests, no bytes of blobs. Only what a mirror has
//! not fetched yet comes from its upstream first.
//! Guarantees: gates are asked anew each time, about the digest that is promoted. A promotion that was seen to have taken
//! effect has a record in the bucket that says by what it was decided. A repeat changes nothing. Nothing is promoted over
//! a tag that has become another since it was decided.
//! Never: decides who may ask.

mod automatic;
mod copy;
mod fetch;
mod gates;
mod gather;
mod ledger;

use std::time::Duration;

use serde_json::{Value, json};
use stowage_oci::{Digest, Glob, Name, Reference, RepositoryTemplate, Tag, TagSelection, TagTemplate};

use self::copy::{Brought, Way};
use super::push::Pusher;
use super::reconcile::Unit;
use super::{Domain, Error};
use crate::meta::{
    LedgerApproval, LedgerPolicy, LedgerRecord, LedgerSource, LedgerTarget, ManifestRow, RequestedPromotion,
};
use crate::ops::clock;
pub(super) use automatic::Promoting;
pub use gates::{Gate, GateResult, Since, Verdict, Wanted, shown_time};
pub use ledger::LedgerPage;

/// How often a promotion is decided again when its target changes under it.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// A policy: what may go where, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct PromotionRule {
    /// Its name.
    pub name: String,
    /// Which edit of it, where a cluster counts them.
    pub generation: Option<i64>,
    /// `sha256:` of its specification.
    pub hash: String,
    /// Its specification, for the ledger.
    pub spec: Value,
    /// Repositories that artifacts come from.
    pub from: Vec<Glob>,
    /// Which of their tags.
    pub tags: TagSelection,
    /// The repository that they go to.
    pub to: RepositoryTemplate,
    /// The tag that they have there.
    pub to_tag: TagTemplate,
    /// What must hold before.
    pub gates: Vec<Gate>,
    /// Whether a tag that names something else is moved.
    pub overwrites: bool,
    /// Whether what refers to an artifact goes with it.
    pub with_referrers: bool,
    /// How long something may wait for its gates.
    pub deadline: Duration,
    /// Who may begin a promotion now.
    pub trigger: Trigger,
}

/// Who may begin a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Nobody: the policy is suspended, or the registry takes no changes.
    Nobody,
    /// Whoever asks for it.
    Request,
    /// Also the registry by itself.
    Automatic,
}

impl PromotionRule {
    /// Where what is asked for would go, if it would go anywhere.
    #[must_use]
    pub fn destination(&self, request: &PromotionRequest) -> Option<Name> {
        target(self, request).ok().map(|(repository, _)| repository)
    }

    /// Whether the registry promotes by itself what it is for.
    fn is_automatic(&self) -> bool {
        self.trigger == Trigger::Automatic
    }

    /// The pattern by which artifacts of the repository are promoted, if they are.
    fn pattern_of(&self, source: &Name) -> Option<&Glob> {
        self.from.iter().find(|glob| glob.matches(source.as_str()))
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionRequest {
    /// How who asks names it.
    pub id: Option<String>,
    /// From where.
    pub repository: Name,
    /// Which tag. With a digest it is only a name.
    pub tag: Option<Tag>,
    /// Which digest.
    pub digest: Option<Digest>,
    /// What the tag named when this was asked for, if it was looked at before.
    pub pinned: Option<Digest>,
    /// Who asks.
    pub requested_by: Option<String>,
    /// Who carries it out.
    pub actor: String,
    /// Who said yes to what.
    pub approvals: Vec<LedgerApproval>,
    /// Why.
    pub reason: Option<String>,
}

/// Whether something is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionMode {
    /// Only the gates are asked.
    DryRun,
    /// It is promoted if they let it.
    Promote,
    /// The same, and what waits for them then has waited too long.
    LastTime,
}

/// How a request ended, or why it has not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was promoted.
    Promoted,
    /// It had been, and the target is as it was left then.
    AlreadyPromoted,
    /// A dry run: it would be promoted.
    AllPassed,
    /// A gate does not let it yet.
    WaitingForGates,
    /// A gate never will.
    GateFailed,
    /// The policy is not for this repository or tag.
    NotCovered,
    /// There is no such artifact.
    ArtifactNotFound,
    /// The tag names another digest than when it was asked for.
    ArtifactChanged,
    /// The tag of the target names another digest, which is not to be overwritten.
    TagConflict,
    /// The tag of the target, or of what comes along, is immutable and names another digest.
    TagImmutable,
    /// No legal name comes of the policy's target.
    InvalidTarget,
    /// It waited for its gates for longer than the policy lets it.
    Expired,
}

impl Ending {
    /// The word in a status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promoted => crate::meta::PROMOTED,
            Self::AlreadyPromoted => "AlreadyPromoted",
            Self::AllPassed => "AllPassed",
            Self::WaitingForGates => "WaitingForGates",
            Self::GateFailed => "GateFailed",
            Self::NotCovered => "NotCovered",
            Self::ArtifactNotFound => "ArtifactNotFound",
            Self::ArtifactChanged => "ArtifactChanged",
            Self::TagConflict => "TagConflict",
            Self::TagImmutable => "TagImmutable",
            Self::InvalidTarget => "InvalidTarget",
            Self::Expired => "Expired",
        }
    }

    /// Whether nothing will ever come of the request.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Promoted | Self::AlreadyPromoted | Self::AllPassed | Self::WaitingForGates => false,
            Self::GateFailed
            | Self::NotCovered
            | Self::ArtifactNotFound
            | Self::ArtifactChanged
            | Self::TagConflict
            | Self::TagImmutable
            | Self::InvalidTarget
            | Self::Expired => true,
        }
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// How it ended.
    pub ending: Ending,
    /// The same for a human.
    pub message: String,
    /// The artifact, once it is known.
    pub digest: Option<Digest>,
    /// Where it goes, or is.
    pub target: Option<(Name, Tag)>,
    /// What the tag of the target named before.
    pub previous: Option<Digest>,
    /// What each gate says.
    pub gates: Vec<GateResult>,
    /// How many manifests that refer to it came with it.
    pub referrers: usize,
}

impl Promotion {
    fn ended(ending: Ending, message: impl Into<String>) -> Self {
        Self {
            ending,
            message: message.into(),
            digest: None,
            target: None,
            previous: None,
            gates: Vec::new(),
            referrers: 0,
        }
    }

    /// The same in JSON, as commands and the admin port tell it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let gate = |gate: &GateResult| {
            json!({
                "name": gate.name, "kind": gate.kind, "status": gate.verdict.status(), "reason": gate.reason,
                "message": gate.message, "notBefore": gate.not_before.map(shown_time), "evidence": gate.evidence,
            })
        };
        let target = self.target.as_ref().map(|(name, tag)| json!({ "repository": name, "tag": tag }));
        json!({
            "result": self.ending.name(), "message": self.message, "digest": self.digest,
            "target": target, "previousDigest": self.previous, "referrers": self.referrers,
            "gates": self.gates.iter().map(gate).collect::<Vec<_>>(),
        })
    }

    /// When to ask again, in milliseconds since 1970, if a gate knows.
    #[must_use]
    pub fn not_before(&self) -> Option<u64> {
        self.gates.iter().filter_map(|gate| gate.not_before).max()
    }
}

/// An artifact that is promoted.
struct Artifact {
    digest: Digest,
    media_type: String,
    /// Where it is: in the source; or in the target alone, when the source has lost it.
    repository: Name,
    target: Name,
    tag: Tag,
}

impl Domain {
    /// Carries a request out, as far as the gates of its policy let it.
    pub async fn promote(
        &self,
        rule: &PromotionRule,
        request: &PromotionRequest,
        mode: PromotionMode,
    ) -> Result<Promotion, Error> {
        let (target, tag) = match target(rule, request) {
            Ok(target) => target,
            Err((ending, message)) => return Ok(Promotion::ended(ending, message)),
        };
        let known = |promotion| Promotion { target: Some((target.clone(), tag.clone())), ..promotion };
        let artifact = match self.pin_artifact(rule, request, &target, &tag).await? {
            Ok(artifact) => artifact,
            Err(refused) => return Ok(known(refused)),
        };
        let mut gates = Vec::with_capacity(rule.gates.len());
        for gate in &rule.gates {
            let found = self.evidence(gate, &artifact.repository, artifact.digest, request).await?;
            gates.push(gates::judge(gate, &found, clock::milliseconds()));
        }
        let judged = judged(&gates).map(|refused| expired(refused, rule, mode));
        let known = |promotion| {
            let digest = Some(artifact.digest);
            Promotion { digest, gates: gates.clone(), ..known(promotion) }
        };
        let promotion = match judged {
            Some(refused) => known(refused),
            None if mode == PromotionMode::DryRun => {
                known(Promotion::ended(Ending::AllPassed, "every gate lets it pass"))
            }
            None => known(match self.bring_over(rule, request, &artifact, &gates).await {
                Err(refused @ Error::TagImmutable { .. }) => {
                    Promotion::ended(Ending::TagImmutable, refused.to_string())
                }
                brought => brought?,
            }),
        };
        if mode == PromotionMode::DryRun {
            return Ok(promotion);
        }
        if let Some(id) = &request.id {
            self.note_requested(rule, request, artifact.digest, id, promotion.ending).await?;
        }
        if promotion.ending.is_failure() {
            let record = record(rule, request, &artifact, &gates, promotion.previous, Vec::new());
            self.meta.note_promotion(&record, promotion.ending.name()).await?;
        }
        Ok(promotion)
    }

    /// What somebody asked for is kept while it waits, for as long as its policy lets it.
    async fn note_requested(
        &self,
        rule: &PromotionRule,
        request: &PromotionRequest,
        digest: Digest,
        id: &str,
        ending: Ending,
    ) -> Result<(), Error> {
        if ending != Ending::WaitingForGates {
            return Ok(self.meta.end_requested(id).await?);
        }
        let requested = RequestedPromotion {
            id,
            policy: &rule.name,
            hash: &rule.hash,
            repository: &request.repository,
            tag: request.tag.as_ref(),
            digest,
        };
        Ok(self.meta.keep_requested(&requested, rule.deadline).await?)
    }

    /// What the request means now. By tag alone, that is what it names.
    async fn pin_artifact(
        &self,
        rule: &PromotionRule,
        request: &PromotionRequest,
        target: &Name,
        tag: &Tag,
    ) -> Result<Result<Artifact, Promotion>, Error> {
        let artifact = |row: ManifestRow, repository: &Name| Artifact {
            digest: row.digest,
            media_type: row.media_type,
            repository: repository.clone(),
            target: target.clone(),
            tag: tag.clone(),
        };
        let source = &request.repository;
        let Some(digest) = request.digest else {
            let named = request.tag.clone().map(Reference::Tag);
            let row = match &named {
                Some(reference) => self.row(source, reference).await?,
                None => None,
            };
            return Ok(match (row, request.pinned) {
                (Some(row), Some(pinned)) if row.digest != pinned => {
                    let message =
                        format!("the tag named {pinned} when this was asked for, and is {} now", row.digest);
                    Err(Promotion {
                        digest: Some(pinned),
                        ..Promotion::ended(Ending::ArtifactChanged, message)
                    })
                }
                (Some(row), _) => Ok(artifact(row, source)),
                (None, Some(pinned)) => {
                    let message = format!("the tag named {pinned} when this was asked for, and is gone");
                    Err(Promotion {
                        digest: Some(pinned),
                        ..Promotion::ended(Ending::ArtifactChanged, message)
                    })
                }
                (None, None) => Err(not_found(source)),
            });
        };
        let reference = Reference::Digest(digest);
        if let Some(row) = self.row(source, &reference).await? {
            return Ok(Ok(artifact(row, source)));
        }
        // What this policy has brought before can be named again, also when the source has lost it.
        let entries = self.promotions(target, digest).await?;
        let is_known = entries.iter().any(|entry| entry.record.policy.name == rule.name);
        let row = if is_known { self.row(target, &reference).await? } else { None };
        Ok(row.map(|row| artifact(row, target)).ok_or_else(|| not_found(source)))
    }

    /// Promotes an artifact that every gate lets pass.
    async fn bring_over(
        &self,
        rule: &PromotionRule,
        request: &PromotionRequest,
        artifact: &Artifact,
        gates: &[GateResult],
    ) -> Result<Promotion, Error> {
        let Artifact { digest, repository, target, tag, .. } = artifact;
        let way = Way { domain: self, from: repository, to: target, with_referrers: rule.with_referrers };
        for attempt in 1..=ATTEMPTS {
            let previous = self.row(target, &Reference::Tag(tag.clone())).await?.map(|row| row.digest);
            if previous == Some(*digest) && self.is_recorded(rule, artifact).await? {
                return Ok(Promotion::ended(Ending::AlreadyPromoted, "it was promoted before"));
            }
            if let Some(other) = previous.filter(|previous| previous != digest) {
                if !rule.overwrites {
                    let message = format!("{target}:{tag} is {other}, and onTagConflict is Fail");
                    return Ok(Promotion { previous, ..Promotion::ended(Ending::TagConflict, message) });
                }
                // The push would say so too, after all else came.
                let immutable = self.immutability.load_full();
                if immutable.covering(target, tag).is_some() {
                    return Err(immutable.refusal(target, tag.clone()));
                }
            }
            let mut brought = Brought::default();
            let read = way.prepare(*digest, &mut brought).await?;
            let referrers = brought.referrers.len();
            let record = record(rule, request, artifact, gates, previous, brought.referrers);
            let tags = std::slice::from_ref(tag);
            let pushing =
                self.push_until_published(target, &read.facts, tags, &read.body, Pusher::Promoting(&record));
            match Box::pin(pushing).await {
                Ok(()) => {
                    let message = format!("{target}:{tag} is {digest}");
                    let promoted = Promotion::ended(Ending::Promoted, message);
                    return Ok(Promotion { previous, referrers, ..promoted });
                }
                // The tag was moved, or is about to be: what holds now is decided anew.
                Err(Error::Overtaken) => tokio::time::sleep(PAUSE * attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Overtaken)
    }

    async fn is_recorded(&self, rule: &PromotionRule, artifact: &Artifact) -> Result<bool, Error> {
        let entries = self.promotions(&artifact.target, artifact.digest).await?;
        let is_it =
            |record: &LedgerRecord| record.policy.name == rule.name && record.target.tag == artifact.tag;
        Ok(entries.iter().any(|entry| is_it(&entry.record)))
    }

    async fn row(&self, repository: &Name, reference: &Reference) -> Result<Option<ManifestRow>, Error> {
        let unit = Unit::named(repository, reference);
        self.ask_database(&[unit], |epoch| self.lookups.manifest(epoch, repository, reference)).await
    }
}

fn not_found(source: &Name) -> Promotion {
    Promotion::ended(Ending::ArtifactNotFound, format!("{source} has no such artifact"))
}

/// Where the policy sends what is asked for; or why nowhere.
fn target(rule: &PromotionRule, request: &PromotionRequest) -> Result<(Name, Tag), (Ending, String)> {
    let source = &request.repository;
    let from = rule.pattern_of(source);
    let takes = |tag: &Tag| rule.tags.takes(tag);
    let Some(from) = from.filter(|_| request.tag.as_ref().is_none_or(takes)) else {
        let what = request.tag.as_ref().map_or_else(|| source.to_string(), |tag| format!("{source}:{tag}"));
        let message = format!("PromotionPolicy {} is not for {what}", rule.name);
        return Err((Ending::NotCovered, message));
    };
    let invalid = |what: &str| {
        let message = format!("PromotionPolicy {}: {what} gives no legal name for {source}", rule.name);
        (Ending::InvalidTarget, message)
    };
    let target = rule.to.expand(from, source).ok_or_else(|| invalid("to.repository"))?;
    let tag = rule.to_tag.expand(request.tag.as_ref()).ok_or_else(|| invalid("to.tag"))?;
    if target == *source && request.tag.as_ref() == Some(&tag) {
        return Err((Ending::InvalidTarget, "it would be promoted to where it is".to_owned()));
    }
    Ok((target, tag))
}

/// Why nothing is done, if one of the gates does not let it pass.
fn judged(gates: &[GateResult]) -> Option<Promotion> {
    let of = |verdict: Verdict| {
        let said: Vec<String> = gates
            .iter()
            .filter(|gate| gate.verdict == verdict)
            .map(|gate| format!("{}: {}", gate.name, gate.message))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    };
    of(Verdict::Fails)
        .map(|message| Promotion::ended(Ending::GateFailed, message))
        .or_else(|| of(Verdict::Waits).map(|message| Promotion::ended(Ending::WaitingForGates, message)))
}

/// What still waits when it is asked for the last time has ended.
fn expired(promotion: Promotion, rule: &PromotionRule, mode: PromotionMode) -> Promotion {
    if promotion.ending != Ending::WaitingForGates || mode != PromotionMode::LastTime {
        return promotion;
    }
    let message = format!(
        "it waited for longer than the {:?} of PromotionPolicy {}: {}",
        rule.deadline, rule.name, promotion.message
    );
    Promotion { ending: Ending::Expired, message, ..promotion }
}

fn record(
    rule: &PromotionRule,
    request: &PromotionRequest,
    artifact: &Artifact,
    gates: &[GateResult],
    previous: Option<Digest>,
    referrers: Vec<Digest>,
) -> LedgerRecord {
    let counts = |approval: &&LedgerApproval| {
        gates::counts(approval, request.requested_by.as_deref(), &artifact.digest)
    };
    LedgerRecord {
        v: 1,
        promotion: request.id.clone(),
        at: shown_time(clock::milliseconds()),
        digest: artifact.digest,
        media_type: artifact.media_type.clone(),
        source: LedgerSource { repository: request.repository.clone(), tag: request.tag.clone() },
        target: LedgerTarget {
            repository: artifact.target.clone(),
            tag: artifact.tag.clone(),
            previous_digest: previous,
        },
        policy: LedgerPolicy {
            name: rule.name.clone(),
            generation: rule.generation,
            hash: rule.hash.clone(),
            spec: Some(rule.spec.clone()),
        },
        requested_by: request.requested_by.clone(),
        actor: request.actor.clone(),
        approvals: request.approvals.iter().filter(counts).cloned().collect(),
        gates: gates.iter().map(GateResult::evidence).collect(),
        referrers,
        reason: request.reason.clone(),
    }
    .fitted()
}
