// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One place where every step of a database passes: what faults and traces share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::{
    Backlog, BlobCommit, BlobRow, Cached, CachedManifest, CancelOutcome, Candidate, Candidates, Changes,
    Claim, Collect, CommitOutcome, DeleteOutcome, Difference, DigestSpan, DueRemoval, Envelope, Epoch, Error,
    ExpiredIntent, Fetched, Incarnation, Job, LeaseOutcome, Leases, Ledger, LedgerClaim, LedgerEntry,
    LedgerFilter, LedgerPlace, LedgerRecord, LinkId, Location, ManifestClaim, ManifestId, ManifestRow,
    MetaStore, Mirroring, Mount, Multipart, NewLimits, NewUpload, Outcome, OutgoingTag, Pass, Pin,
    PinOutcome, Pinned, Plan, Progress, PromotionCandidate, Publish, PublishOutcome, Pulls, Reaped, Receive,
    Reconcile, ReferrerRow, RemoteUsage, Removal, RequestedPromotion, Resolve, Restorable, Restoration,
    RestoreOutcome, Retain, RetentionClock, RetentionFacts, RunRow, Runs, Scope, Shard, ShardOutcome, Spared,
    Stamp, Swept, TagEntry, TagSpan, TagState, TakenCandidate, Today, Trash, TrashItem, Trashed, TrashedTag,
    TurnsTaken, TurnsWanted, Unpromoted, UntaggedWanted, UploadKey, UpstreamLimits, Usages, Verification,
    WalkProgress, Which,
};
use crate::key::{Day, Generation, Key, RunKind, RunName};

/// What a layer does around a step.
pub trait Around: Send + Sync {
    /// Carries the step out, or not, and answers. A step is named as the method of its role.
    fn around<T: Send>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> impl Future<Output = Result<T, Error>> + Send;
}

/// A database with a layer around it.
pub struct Layered<A> {
    inner: Arc<dyn MetaStore>,
    layer: A,
}

impl<A: Around> Layered<A> {
    pub(super) fn new(inner: Arc<dyn MetaStore>, layer: A) -> Self {
        Self { inner, layer }
    }
}

/// Each role, each step of it around the same step of the inner store; and the list of all steps.
macro_rules! decorate {
    ($($role:ident { $(fn $step:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* })*) => {
        /// The names of all steps.
        #[cfg(any(test, feature = "testing"))]
        pub(super) const STEPS: &[&str] = &[$($(stringify!($step)),*),*];

        $(#[async_trait]
        impl<A: Around> $role for Layered<A> {
            $(async fn $step(&self, $($argument: $type),*) -> Result<$answer, Error> {
                self.layer.around(stringify!($step), self.inner.$step($($argument),*)).await
            })*
        })*
    };
}

decorate! {
    Resolve {
        fn tagged(epoch: Epoch, wanted: &[(Name, Tag)]) -> Vec<Option<ManifestRow>>;
        fn manifests(epoch: Epoch, wanted: &[(Name, Digest)]) -> Vec<Option<ManifestRow>>;
        fn blobs(epoch: Epoch, wanted: &[(Name, Digest)]) -> Vec<Option<BlobRow>>;
        fn renew_link(link: LinkId) -> bool;
        fn renew_manifest(manifest: ManifestId) -> bool;
        fn tags(epoch: Epoch, repository: &Name, after: Option<&str>, limit: u32) -> Option<Vec<Tag>>;
        fn referrers(
            epoch: Epoch,
            repository: &Name,
            subject: &Digest,
            artifact_types: &[String],
            after: Option<Generation>,
            limit: u32
        ) -> Vec<ReferrerRow>;
        fn takes_referrer(repository: &Name, subject: &Digest, limit: u32) -> bool;
        fn repositories(epoch: Epoch, after: Option<&str>, limit: u32) -> Vec<Name>;
        fn repositories_with(digest: &Digest, limit: u32) -> Vec<Name>;
        fn indexes_with(repository: &Name, child: &Digest, limit: u32) -> Vec<Digest>;
        fn mark_absent(digest: &Digest, generation: Generation) -> ();
    }
    Receive {
        fn open_upload(upload: &NewUpload, expiry: Duration, limit: u32) -> Option<Uuid>;
        fn upload_offset(key: &UploadKey) -> Option<u64>;
        fn lease_upload(key: &UploadKey, token: Uuid) -> LeaseOutcome;
        fn extend_lease(id: Uuid, token: Uuid) -> bool;
        fn release_upload(id: Uuid, token: Uuid) -> ();
        fn restart_upload(id: Uuid, token: Uuid, generation: Generation) -> bool;
        fn record_multipart(id: Uuid, token: Uuid, multipart: &Multipart) -> bool;
        fn store_progress(id: Uuid, token: Uuid, progress: &Progress) -> bool;
        fn record_plan(id: Uuid, token: Uuid, plan: &Plan, progress: &Progress) -> bool;
        fn plan_paused(id: Uuid, lease: u32, token: Uuid, plan: &Plan) -> bool;
        fn drop_upload(id: Uuid, token: Uuid) -> bool;
        fn cancel_upload(key: &UploadKey) -> CancelOutcome;
        fn touch_stored(digest: &Digest) -> bool;
        fn commit_blob(epoch: Epoch, commit: &BlobCommit) -> CommitOutcome;
        fn begin_mount(
            epoch: Epoch,
            from: &Name,
            to: &Name,
            digest: &Digest,
            generation: Generation
        ) -> Option<Mount>;
        fn finish_mount(epoch: Epoch, mount: &Mount) -> bool;
    }
    Publish {
        fn pin_manifest(epoch: Epoch, pin: &Pin) -> PinOutcome;
        fn publish_manifest(pinned: &Pinned) -> PublishOutcome;
        fn took_effect(epoch: Epoch, pinned: &Pinned) -> bool;
        fn delete_tag(epoch: Epoch, repository: &Name, tag: &Tag, retain: Duration) -> Option<Removal>;
        fn delete_tag_of(
            epoch: Epoch,
            repository: &Name,
            tag: &Tag,
            generation: Generation,
            retain: Duration
        ) -> Option<Removal>;
        fn delete_manifest(
            epoch: Epoch,
            repository: &Name,
            digest: &Digest,
            retain: Duration,
            spared: &Spared<'_>
        ) -> DeleteOutcome;
        fn delete_blob(epoch: Epoch, repository: &Name, digest: &Digest) -> DeleteOutcome;
        fn finish_removal(removal: &Removal) -> bool;
    }
    Trash {
        fn trash(
            epoch: Epoch,
            repository: Option<&Name>,
            after: Option<&TrashItem>,
            limit: u32
        ) -> Vec<Trashed>;
        fn trashed(epoch: Epoch, item: &TrashItem) -> Option<Restorable>;
        fn trashed_referrers(epoch: Epoch, repository: &Name, subject: &Digest) -> Vec<Digest>;
        fn begin_showing(
            epoch: Epoch,
            repository: &Name,
            digest: &Digest,
            generation: Generation
        ) -> Option<Mount>;
    }
    Collect {
        fn incarnation() -> Incarnation;
        fn backlog() -> Backlog;
        fn expired_intents(after: i64, limit: u32) -> Vec<ExpiredIntent>;
        fn reap_intent(epoch: Epoch, intent: &ExpiredIntent, found: &[Key]) -> Reaped;
        fn expired_uploads(after: Uuid, limit: u32) -> Vec<Uuid>;
        fn reap_upload(epoch: Epoch, id: Uuid) -> bool;
        fn trashed_tags(after: Option<&TrashedTag>, limit: u32) -> Vec<TrashedTag>;
        fn purge_tag(epoch: Epoch, tag: &TrashedTag, listed: &[Key]) -> bool;
        fn purge_manifests(epoch: Epoch, limit: u32) -> Swept;
        fn sweep_manifests(epoch: Epoch, retain: Option<Duration>, limit: u32) -> Swept;
        fn sweep_links(epoch: Epoch, limit: u32) -> Swept;
        fn sweep_blobs(epoch: Epoch, limit: u32) -> Swept;
        fn postpone(epoch: Epoch, kind: Candidate) -> ();
        fn discard(epoch: Epoch, keys: &[Key]) -> ();
        fn take_removals(epoch: Epoch, which: Which, limit: u32) -> Vec<DueRemoval>;
        fn settle_removals(epoch: Epoch, rows: &[i64]) -> ();
    }
    Leases {
        fn envelope() -> Option<Envelope>;
        fn found(registry: Uuid) -> bool;
        fn claim_epoch(bucket: u32, generation: Generation) -> Option<u32>;
        fn enter_epoch(claim: u32, generation: Generation) -> bool;
        fn finish_walk(epoch: Epoch) -> bool;
        fn destroy(registry: Uuid) -> bool;
        fn ping() -> ();
    }
    Reconcile {
        fn blob_claims(span: &DigestSpan, limit: u32) -> Vec<(Digest, Location)>;
        fn link_claims(repository: &Name, span: &DigestSpan, limit: u32) -> Vec<(Digest, Generation)>;
        fn manifest_claims(repository: &Name, span: &DigestSpan, limit: u32) -> Vec<ManifestClaim>;
        fn referrer_claims(
            repository: &Name,
            span: &DigestSpan,
            limit: u32
        ) -> Vec<(Digest, Digest, Generation)>;
        fn tag_claims(repository: &Name, span: &TagSpan, limit: u32) -> Vec<(Tag, TagEntry)>;
        fn ledger_claims(repository: &Name, span: &DigestSpan, limit: u32) -> Vec<LedgerClaim>;
        fn settle(scope: &Scope, difference: &Difference<'_>) -> Outcome;
        fn repositories_below(prefix: &str, after: Option<&str>, limit: u32) -> Vec<Name>;
        fn plan_walk(epoch: Epoch, shards: &[Shard]) -> bool;
        fn claim_shard(epoch: Epoch, owner: Uuid) -> ShardOutcome;
        fn keep_shard(epoch: Epoch, shard: &str, owner: Uuid) -> bool;
        fn release_shards(epoch: Epoch, owners: &[Uuid]) -> ();
        fn finish_shard(epoch: Epoch, shard: &str, owner: Uuid) -> bool;
        fn walk_progress(epoch: Epoch) -> WalkProgress;
        fn accept_loss(epoch: Epoch) -> ();
        fn queue_unreferenced(epoch: Epoch) -> ();
        fn end_walk(epoch: Epoch) -> Option<Changes>;
        fn forget_incarnation() -> ();
        fn hold_rebuild(owner: Uuid) -> bool;
        fn end_rebuild(owner: Uuid) -> ();
    }
    Verification {
        fn pass(job: Job) -> Pass;
        fn begin_pass(job: Job, parts: &[String], spread: Duration) -> ();
        fn parts(job: Job) -> Vec<String>;
        fn claim_part(job: Job, owner: Uuid, spread: Duration) -> Option<String>;
        fn keep_part(job: Job, part: &str, owner: Uuid) -> bool;
        fn release_parts(job: Job, owners: &[Uuid]) -> ();
        fn finish_part(job: Job, part: &str, owner: Uuid, findings: u64) -> bool;
        fn begin_restore(
            epoch: Epoch,
            repository: &Name,
            digest: &Digest,
            lost: Generation,
            generation: Generation
        ) -> RestoreOutcome;
        fn finish_restore(epoch: Epoch, restoration: &Restoration) -> bool;
    }
    Mirroring {
        fn tag_checked(repository: &Name, tag: &Tag) -> Option<Duration>;
        fn note_tag_checked(repository: &Name, tag: &Tag, ago: Duration) -> ();
        fn tag_states(repository: &Name, after: Option<&str>, limit: u32) -> Vec<TagState>;
        fn note_seen(repository: &Name, tag: &Tag, digest: &Digest) -> Duration;
        fn seen(repository: &Name, tag: &Tag) -> Option<(Digest, Duration)>;
        fn awaited_blob(repository: &Name, digest: &Digest) -> Option<u64>;
        fn claim_fetch(what: &str, owner: Uuid, progress: Fetched, lease: Duration) -> Claim;
        fn end_fetch(what: &str, owner: Uuid) -> ();
        fn upstream_limits(upstream: &str) -> UpstreamLimits;
        fn take_turns(upstream: &str, wanted: TurnsWanted) -> Option<TurnsTaken>;
        fn note_upstream_limits(upstream: &str, limits: NewLimits) -> ();
    }
    Pulls {
        fn record_pulls(pulled: &[(Name, Digest)]) -> Today;
        fn restore_pulls(epoch: Epoch, stamps: &[Stamp]) -> ();
        fn pull_stamps(after: Option<ManifestId>, limit: u32) -> Vec<(ManifestId, Stamp)>;
        fn last_pulls(repository: &Name, digests: &[Digest]) -> Vec<Option<Day>>;
        fn note_pull_writers(epoch: Epoch, writers: &[(Generation, Day)]) -> ();
        fn forget_pull_writer(epoch: Epoch, writer: Generation) -> ();
        fn pull_writers() -> Vec<(Generation, Day)>;
        fn pull_gap() -> Option<Day>;
    }
    Usages {
        fn report_usage(remote: &str, digests: &[Digest], references: &[String]) -> ();
        fn usage_reports() -> Vec<RemoteUsage>;
    }
    Cached {
        fn cached_manifests(
            path: &Name,
            after: Option<ManifestId>,
            limit: u32
        ) -> Vec<CachedManifest>;
    }
    Ledger {
        fn promotions_into(target: &Name, digest: &Digest, limit: u32) -> Vec<LedgerEntry>;
        fn list_promotions(
            filter: &LedgerFilter,
            after: LedgerPlace,
            limit: u32
        ) -> Vec<(LedgerPlace, LedgerEntry)>;
        fn note_promotion(record: &LedgerRecord, outcome: &str) -> ();
    }
    Candidates {
        fn await_promotion(candidate: &PromotionCandidate) -> ();
        fn hasten_promotions(repository: &Name, digest: &Digest) -> ();
        fn take_candidate(policies: &[String], lease: Duration) -> Option<TakenCandidate>;
        fn next_candidate(policies: &[String]) -> Option<Duration>;
        fn postpone_candidate(taken: &TakenCandidate, after: Duration) -> ();
        fn end_candidate(taken: &TakenCandidate) -> ();
        fn keep_requested(requested: &RequestedPromotion<'_>, most: Duration) -> ();
        fn end_requested(id: &str) -> ();
        fn forget_candidates(policies: &[String]) -> ();
        fn unpromoted(
            wanted: &Unpromoted<'_>,
            after: Option<&str>,
            limit: u32
        ) -> Vec<(Tag, Digest)>;
    }
    Retain {
        fn retention_clock() -> RetentionClock;
        fn retention_facts(repository: &Name) -> RetentionFacts;
        fn live_among(repository: &Name, digests: &[Digest]) -> Vec<Digest>;
        fn families(repository: &Name, digests: &[Digest]) -> Vec<(Digest, Digest)>;
        fn reclaimable(repository: &Name, tags: &[Tag]) -> u64;
        fn retire_tags(
            epoch: Epoch,
            repository: &Name,
            tags: &[OutgoingTag],
            planned: u64,
            retain: Duration
        ) -> Vec<(Tag, Removal)>;
        fn untagged(
            repository: &Name,
            wanted: UntaggedWanted,
            after: ManifestId,
            limit: u32
        ) -> Vec<(ManifestId, Digest)>;
        fn trash_untagged(
            epoch: Epoch,
            manifests: &[ManifestId],
            rest: Duration,
            retain: Duration
        ) -> u64;
    }
    Runs {
        fn intend_run(epoch: Epoch, key: &Key) -> i64;
        fn record_run(epoch: Epoch, intent: i64, run: &RunRow) -> bool;
        fn adopt_run(epoch: Epoch, run: &RunRow) -> bool;
        fn runs(kind: RunKind, name: &RunName, limit: u32) -> Vec<RunRow>;
        fn forget_runs(epoch: Epoch, keep: u32, limit: u32) -> u64;
    }
}
