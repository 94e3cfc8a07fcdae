// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every [`MetaStore`] must do, as tests that are stamped on each implementation.
//!
//! [`meta_conformance!`](crate::meta_conformance) takes a name and a function that gives each test a database
//! of its own. Besides the store a test needs to see the queues, and to let time pass: [`Inspect`].

pub mod blobs;
pub mod candidates;
pub mod collect;
pub mod deletes;
pub mod epochs;
pub mod ledger;
pub mod lists;
pub mod manifests;
pub mod mirroring;
pub mod pulls;
pub mod reconcile;
pub mod retain;
pub mod runs;
pub mod trash;
pub mod uploads;
pub mod usages;
pub mod verify;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Algorithm, Digest, Name, Reference, Tag};
use uuid::Uuid;

use super::{
    BlobCommit, BlobRow, CommitOutcome, Epoch, LeaseOutcome, LeasedUpload, Location, ManifestFacts,
    ManifestRow, MetaStore, NewUpload, Pin, PinOutcome, Pinned, Plan, Progress, PublishOutcome, Removal,
    UploadKey,
};
use crate::key::{Form, Generation, Key};
use crate::ops::clock;

/// Stamps the suite on an implementation: `meta_conformance!(postgres, crate::fixture)`, where `fixture` is an
/// `async fn() -> Fixture`.
#[macro_export]
macro_rules! meta_conformance {
    ($name:ident, $fixture:path) => {
        mod $name {
            $crate::meta_conformance! { @stamp $fixture;
                uploads: an_upload_is_seen_only_by_its_repository_and_principal,
                    a_leased_upload_is_busy_for_another_request,
                    a_request_that_repeats_its_lease_is_given_it,
                    a_lease_that_ran_out_is_taken_over_and_its_token_is_worthless,
                    progress_is_what_the_next_lease_reads,
                    only_its_holder_extends_a_lease,
                    a_closing_upload_can_only_be_closed_as_planned,
                    a_paused_upload_that_nobody_has_taken_since_is_taken_and_planned_at_once,
                    a_paused_upload_that_somebody_has_taken_since_is_not_planned,
                    a_paused_upload_that_expired_or_ended_is_not_planned,
                    a_multipart_upload_is_recorded_once,
                    a_restarted_upload_queues_what_its_old_generation_left,
                    a_dropped_upload_queues_all_that_its_requests_may_have_staged,
                    cancelling_ends_an_upload_unless_a_request_holds_it,
                    an_upload_expires_after_its_last_progress,
                    a_principal_has_only_so_many_open_uploads;
                blobs: a_committed_blob_is_seen_by_its_repository_alone,
                    every_form_of_data_reads_back,
                    a_commit_without_the_lease_changes_nothing,
                    fifty_commits_of_one_digest_leave_one_row_and_queue_the_other_keys,
                    a_commit_queues_what_the_upload_staged_besides,
                    the_next_commit_heals_an_absent_blob,
                    marking_absent_spares_another_generation,
                    content_stored_already_is_only_linked,
                    content_that_went_meanwhile_ends_the_upload,
                    stored_content_is_known_when_it_is_linked,
                    a_mount_shows_the_blob_once_it_is_finished,
                    a_mount_needs_a_source_that_sees_the_blob,
                    a_mount_whose_source_went_queues_its_record,
                    an_old_lease_is_renewed;
                manifests: a_manifest_is_live_only_when_it_is_published,
                    a_long_manifest_is_kept_without_its_bytes,
                    a_pin_lists_the_blobs_that_are_missing,
                    children_may_come_later_unless_the_rules_are_strict,
                    an_intent_names_every_key_that_the_push_writes,
                    a_push_of_a_live_manifest_writes_only_tags,
                    the_later_pin_wins_the_tag_whatever_is_published_last,
                    a_moved_tag_queues_its_old_record_in_its_lane,
                    the_second_writer_of_one_manifest_queues_its_own_record,
                    a_manifest_deleted_before_publish_starts_over,
                    a_push_is_published_once_and_found_again,
                    a_push_that_is_overtaken_is_not_pushed_again,
                    a_push_took_no_effect_whose_manifest_or_tag_is_not_there,
                    w285_an_immutable_tag_is_pushed_once_and_again_by_the_same_digest,
                    w285_of_pushes_at_the_same_time_one_gives_an_immutable_tag_its_digest,
                    w285_a_push_that_was_taken_back_is_not_found_again_in_the_immutable_tag_of_another,
                    many_pushes_of_one_tag_end_with_the_highest_version;
                deletes: a_deleted_tag_is_gone_and_its_tombstone_is_queued,
                    a_push_pinned_before_a_delete_loses_to_it,
                    a_push_pinned_after_a_delete_brings_the_tag_back,
                    a_deleted_manifest_takes_its_tags_with_it,
                    a_push_of_a_tag_outlives_the_deletion_of_the_manifest_that_it_named,
                    a_live_manifest_whose_tag_was_swept_stays_live,
                    a_manifest_with_a_tag_that_is_spared_is_not_deleted,
                    a_manifest_that_an_index_lists_is_not_deleted,
                    the_markers_of_deleted_parents_come_before_that_of_the_child,
                    a_deleted_manifest_can_be_pushed_again,
                    a_blob_that_a_manifest_lists_is_not_deleted,
                    a_deleted_blob_that_nothing_holds_becomes_a_candidate,
                    a_blob_that_the_trash_holds_is_hidden_and_comes_back,
                    a_push_and_a_delete_of_its_blob_never_both_succeed,
                    a_push_and_a_delete_of_its_child_never_both_succeed,
                    pushes_and_deletes_of_one_tag_end_as_its_order_says;
                trash: the_trash_lists_deleted_tags_and_manifests_that_none_names,
                    what_lives_again_is_not_in_the_trash,
                    a_deleted_tag_is_set_again_over_its_tombstone_alone,
                    deleted_referrers_of_a_subject_are_known,
                    a_blob_that_was_deleted_and_is_kept_is_shown_again;
                lists: what_is_looked_up_together_is_answered_in_order,
                    tags_are_pages_in_byte_order,
                    a_repository_that_was_never_pushed_to_has_no_tags,
                    referrers_are_newest_first_and_filtered,
                    a_subject_need_not_exist,
                    repositories_are_pages_in_byte_order,
                    repositories_with_a_blob_are_those_that_see_it,
                    indexes_with_a_child_are_those_that_live_here;
                collect: nothing_is_collected_until_the_walk_has_ended,
                    a_blob_that_is_unlinked_goes_level_by_level,
                    what_is_relied_on_is_not_ripe,
                    what_is_referenced_is_forgotten_and_queued_again_when_it_is_not,
                    a_child_that_is_a_blob_is_held_by_the_digest_that_is_wanted,
                    a_hidden_link_goes_without_a_record,
                    data_that_is_missing_goes_with_all_that_may_be_left_of_it,
                    a_trashed_manifest_goes_when_its_time_is_over,
                    a_trashed_manifest_whose_last_tag_moved_away_goes,
                    a_manifest_whose_evidence_is_owed_stays,
                    untagged_manifests_stay_without_a_policy,
                    an_untagged_manifest_goes_to_the_trash_by_policy,
                    l_04_what_an_index_a_subject_or_a_tag_holds_is_not_untagged,
                    a_deleted_tag_goes_with_its_records_oldest_first,
                    a_deleted_tag_stays_while_a_push_below_it_is_under_way,
                    a_deleted_tag_that_was_pushed_again_is_not_purged,
                    an_expired_push_whose_records_are_there_is_finished,
                    an_expired_push_without_its_record_is_withdrawn,
                    an_expired_push_of_a_live_manifest_withdraws_the_tag_that_is_not_there,
                    a_pending_manifest_that_another_push_is_at_is_not_doomed,
                    an_expired_mount_is_finished_or_withdrawn,
                    an_intent_that_is_not_expired_is_left_to_its_writer,
                    l_25_an_expired_upload_ends_and_its_multipart_upload_is_aborted,
                    the_data_of_a_live_blob_outlives_its_upload_row,
                    a_link_record_that_was_all_of_a_push_goes_with_its_upload,
                    a_lane_runs_strictly_in_its_order,
                    owed_evidence_is_taken_apart_from_the_rest,
                    a_removal_is_taken_by_one_worker_at_a_time,
                    a_removal_of_what_is_live_is_refused,
                    markers_go_a_day_after_their_record,
                    another_incarnation_stops_every_collector,
                    a_candidate_is_put_off,
                    the_backlog_counts_what_is_due,
                    l_01_l_03_a_push_and_a_sweep_of_its_link_never_both_succeed,
                    l_06_an_answer_that_it_exists_restarts_the_lease;
                epochs: an_empty_database_is_founded_once,
                    an_epoch_is_claimed_above_database_and_bucket,
                    one_claim_stands_until_it_runs_out,
                    a_restart_supersedes_every_deciding_step,
                    an_epoch_is_walked_when_its_walk_has_ended;
                reconcile: a_difference_is_settled_only_in_its_epoch_and_before_it_is_walked,
                    data_is_adopted_moved_and_lost_as_the_bucket_shows,
                    data_that_a_given_up_upload_had_queued_is_live_again_when_its_pointer_is_found,
                    an_upload_of_an_earlier_incarnation_is_known_as_such_until_it_has_another_generation,
                    a_blob_is_not_swept_while_its_upload_counts_as_open,
                    what_an_upload_wrote_that_was_restored_to_before_its_end_goes_with_it,
                    a_link_that_was_adopted_outlives_a_commit_that_finds_no_data,
                    the_record_of_a_mount_under_way_is_left_to_it,
                    a_removal_that_is_not_known_any_more_ends_no_other,
                    a_link_without_a_record_is_what_those_who_refer_to_it_need,
                    a_manifest_is_adopted_with_all_it_refers_to_and_never_judged_incomplete,
                    a_marked_or_missing_record_sends_its_manifest_to_the_trash_and_its_tags_away,
                    a_pending_manifest_becomes_live_by_a_record_that_was_lost_and_its_push_goes_on,
                    what_an_open_push_has_announced_is_left_to_it,
                    a_tag_is_its_highest_record_that_names_what_lives,
                    entries_below_a_subject_follow_their_manifests,
                    staged_bytes_of_no_upload_and_no_blob_are_queued,
                    too_many_losses_stop_the_walk_for_everybody_until_they_are_accepted,
                    a_part_is_one_replicas_until_its_lease_ends_and_phases_wait_for_each_other,
                    the_end_of_a_walk_takes_back_what_pushes_of_earlier_epochs_left,
                    an_upload_that_became_a_blob_ends_with_the_walk_and_others_go_on,
                    one_rebuild_at_a_time,
                    rows_are_claimed_in_the_order_of_the_bucket;
                verify: a_pass_is_shared_and_each_of_its_parts_is_done_by_one,
                    the_parts_of_a_pass_in_the_background_are_spread,
                    nothing_is_inspected_in_an_epoch_that_is_not_walked,
                    a_record_is_restored_by_intent_and_the_lost_one_is_queued,
                    a_restored_record_of_a_row_that_went_is_queued;
                mirroring: when_a_tag_was_checked_is_known_and_never_earlier_than_that,
                    what_a_tag_is_elsewhere_is_known_since_it_was_seen_first,
                    a_fetch_is_one_owners_until_it_ends_or_its_lease_runs_out,
                    limits_of_an_upstream_are_known_to_all_and_end,
                    turns_of_an_upstream_do_not_overlap_and_are_not_saved_up,
                    turns_that_are_taken_at_once_are_each_ones_own,
                    an_upstream_that_wants_to_be_left_alone_gives_no_turns,
                    a_copied_tag_tells_when_its_origin_set_it_and_which_mirror_copies_it,
                    a_tag_that_moved_or_is_about_to_is_not_copied_over,
                    a_tag_is_deleted_by_its_record_or_not_at_all,
                    a_manifest_whose_blobs_are_awaited_is_live_and_its_blobs_are_not_seen,
                    an_awaited_blob_is_seen_when_it_comes,
                    an_ordinary_push_does_not_rely_on_an_awaited_blob;
                retain: the_live_tags_of_a_repository_are_known_in_byte_order,
                    a_pull_of_a_child_is_one_of_every_index_above,
                    a_gap_in_the_record_is_the_newest_day_that_may_lack_pulls,
                    a_tag_goes_only_as_it_was,
                    a_deleted_tag_leaves_a_tombstone_in_its_lane,
                    what_was_pulled_since_or_signs_what_is_here_does_not_go,
                    nothing_is_retired_in_a_database_that_is_not_trusted,
                    a_family_is_all_that_stands_or_falls_with_a_manifest,
                    what_only_some_tags_need_can_be_reclaimed,
                    only_what_nothing_holds_and_nobody_pulled_is_untagged,
                    an_untagged_manifest_rests_in_the_trash_unless_something_came_to_hold_it;
                runs: a_run_is_remembered_once_its_report_is_stored,
                    a_report_whose_run_was_not_recorded_goes,
                    a_report_that_is_found_is_adopted_unless_its_writer_is_under_way,
                    the_newest_reports_of_each_name_stay,
                    a_report_of_a_run_that_is_remembered_is_not_removed;
                pulls: a_pull_is_noted_on_the_databases_day_for_what_lives,
                    the_later_day_stays,
                    a_pull_of_a_child_counts_for_its_indexes,
                    a_deleted_manifest_takes_its_day_along,
                    the_gap_is_the_last_day_that_a_process_may_not_have_told_of,
                    what_is_told_of_another_incarnation_is_refused;
                usages: a_cluster_is_known_by_what_it_reported_last_and_when,
                    what_a_mirror_keeps_is_told_with_all_that_decides_over_it;
                ledger: a_promotion_is_recorded_in_one_step_with_its_tag,
                    nothing_is_promoted_over_a_tag_that_has_become_another,
                    a_deleted_tag_is_no_tag_to_a_promotion,
                    an_expired_promotion_whose_records_are_there_is_finished,
                    an_expired_promotion_without_its_record_is_not_recorded,
                    the_record_of_a_promotion_is_never_removed,
                    a_promotion_that_did_not_take_effect_is_no_promotion,
                    promotions_are_listed_newest_first_by_what_is_asked_for,
                    promotions_are_made_again_from_their_records;
                candidates: what_waits_is_taken_by_one_and_for_its_policy,
                    a_tag_that_moved_waits_anew,
                    what_was_postponed_is_due_then_or_when_it_is_hastened,
                    what_was_asked_for_counts_as_waiting_and_nobody_takes_it,
                    what_waits_for_no_policy_is_forgotten,
                    a_tag_that_was_promoted_or_judged_is_not_found_again;
            }
        }
    };
    (@stamp $fixture:path; $($group:ident: $($claim:ident),*;)*) => {
        $(mod $group {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                $crate::meta::conformance::$group::$claim($fixture().await).await;
            })*
        })*
    };
}

/// What a test is given: a store over a database of its own.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn MetaStore>,
    /// Its rows.
    pub rows: Arc<dyn Inspect>,
    /// What must live as long as the test.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// A row of the outbox.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Its row.
    pub id: i64,
    /// What is to be done.
    pub steps: Vec<String>,
    /// The tag it concerns.
    pub lane: Option<String>,
    /// What is a candidate afterwards.
    pub then: Option<(char, i64)>,
    /// How long it waits from now on.
    pub due_in: Duration,
}

/// What the suite sees, and changes, of a database behind the store's back.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// The outbox, oldest first.
    async fn outbox(&self) -> Vec<Queued>;
    /// The candidates for collection as (kind, row), oldest first.
    async fn candidates(&self) -> Vec<(char, i64)>;
    /// The keys that each open intent names, oldest first.
    async fn intents(&self) -> Vec<Vec<String>>;
    /// How many rows `blobs` has.
    async fn blobs(&self) -> u64;
    /// Makes every lease, lock, claim and expiry `by` older.
    async fn pass(&self, by: Duration);
    /// Makes the database a new incarnation, as a restart does.
    async fn restart(&self);
}

/// The client of everything in these tests.
const PRINCIPAL: &str = "somebody";
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Half of a lease is over by then.
const OLD: Duration = Duration::from_hours(13);

/// A founded registry in its first epoch, and how to do the usual things in it.
struct World {
    store: Arc<dyn MetaStore>,
    rows: Arc<dyn Inspect>,
    epoch: Epoch,
    _guard: Box<dyn Any + Send + Sync>,
}

/// A blob that was pushed.
#[derive(Clone, Copy, Debug)]
struct Stored {
    digest: Digest,
    generation: Generation,
    location: Location,
}

impl World {
    async fn begin(fixture: Fixture) -> Self {
        let Fixture { store, rows, guard } = fixture;
        assert!(store.found(Uuid::new_v4()).await.expect("found"));
        let generation = fresh();
        let claim =
            store.claim_epoch(0, generation).await.expect("claim").expect("a new database can be claimed");
        assert!(store.enter_epoch(claim, generation).await.expect("enter"));
        assert!(store.finish_walk(Epoch(claim)).await.expect("walk"));
        Self { store, rows, epoch: Epoch(claim), _guard: guard }
    }

    async fn open(&self, repository: &str) -> UploadKey {
        let upload = NewUpload {
            repository: name(repository),
            principal: PRINCIPAL.to_owned(),
            algorithm: Algorithm::Sha256,
            generation: fresh(),
        };
        let id = self.store.open_upload(&upload, DAY, 1000).await.expect("open").expect("below the limit");
        UploadKey { id, repository: upload.repository, principal: upload.principal }
    }

    async fn lease(&self, key: &UploadKey) -> (LeasedUpload, Uuid) {
        let token = Uuid::new_v4();
        (self.lease_as(key, token).await.expect("the upload is free"), token)
    }

    async fn lease_as(&self, key: &UploadKey, token: Uuid) -> Option<LeasedUpload> {
        match self.store.lease_upload(key, token).await.expect("lease") {
            LeaseOutcome::Leased(upload) => Some(*upload),
            LeaseOutcome::Busy { .. } | LeaseOutcome::Unknown => None,
        }
    }

    /// An upload in one request, up to its commit.
    async fn receive(&self, repository: &str, content: &str) -> (Stored, BlobCommit) {
        let key = self.open(repository).await;
        let (upload, token) = self.lease(&key).await;
        let (digest, generation) = (digest(content), upload.generation);
        let location = Location { generation, form: Form::Inline, size: content.len() as u64 };
        let plan = Plan { digest, form: Some(location.form), size: location.size };
        let progress = Progress { offset: location.size, ..Progress::default() };
        assert!(self.store.record_plan(upload.id, token, &plan, &progress).await.expect("plan"));
        let commit =
            BlobCommit { upload: upload.id, token, digest, location: Some(location), link: generation };
        (Stored { digest, generation, location }, commit)
    }

    async fn push(&self, repository: &str, content: &str) -> Stored {
        let (stored, commit) = self.receive(repository, content).await;
        assert_eq!(
            self.store.commit_blob(self.epoch, &commit).await.expect("commit"),
            CommitOutcome::Committed
        );
        stored
    }

    async fn blob(&self, repository: &str, digest: Digest) -> Option<BlobRow> {
        let mut found = self.store.blobs(self.epoch, &[(name(repository), digest)]).await.expect("blobs");
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    async fn pin(&self, repository: &str, facts: ManifestFacts, tags: &[&str]) -> Pinned {
        self.pin_as(&pin(repository, facts, tags)).await.expect("everything is there")
    }

    /// `None`: it is refused.
    async fn pin_as(&self, pin: &Pin) -> Option<Pinned> {
        match self.store.pin_manifest(self.epoch, pin).await.expect("pin") {
            PinOutcome::Pinned(pinned) => Some(*pinned),
            PinOutcome::Missing(_) | PinOutcome::Moved | PinOutcome::Immutable(_) => None,
        }
    }

    async fn publish(&self, pinned: &Pinned) -> PublishOutcome {
        self.store.publish_manifest(pinned).await.expect("publish")
    }

    async fn took_effect(&self, pinned: &Pinned) -> bool {
        self.store.took_effect(self.epoch, pinned).await.expect("look")
    }

    /// Pushes a manifest.
    async fn push_manifest(&self, repository: &str, facts: ManifestFacts, tags: &[&str]) -> Pinned {
        let pinned = self.pin(repository, facts, tags).await;
        assert_eq!(self.publish(&pinned).await, PublishOutcome::Published);
        pinned
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Option<ManifestRow> {
        let reference: Reference = reference.parse().expect("a reference");
        let found = match reference {
            Reference::Tag(tag) => self.store.tagged(self.epoch, &[(name(repository), tag)]).await,
            Reference::Digest(digest) => {
                self.store.manifests(self.epoch, &[(name(repository), digest)]).await
            }
        };
        let mut found = found.expect("manifests");
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    async fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.manifest(repository, tag).await.map(|row| row.digest)
    }

    /// All steps in the outbox, in order.
    async fn steps(&self) -> Vec<String> {
        self.rows.outbox().await.into_iter().flat_map(|row| row.steps).collect()
    }

    async fn queued(&self, step: &str) -> Option<Queued> {
        self.rows.outbox().await.into_iter().find(|row| row.steps.iter().any(|other| other == step))
    }

    async fn finish(&self, removal: &Removal) {
        self.store.finish_removal(removal).await.expect("finish");
    }
}

/// No tag is spared.
fn none(_: &Tag) -> bool {
    false
}

fn fresh() -> Generation {
    Generation::next(clock::milliseconds())
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

/// A manifest whose bytes are `content`.
fn facts(content: &str, blobs: &[Digest]) -> ManifestFacts {
    ManifestFacts {
        digest: digest(content),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: None,
        subject: None,
        annotations: None,
        size: u32::try_from(content.len()).expect("short"),
        body: Some(Bytes::copy_from_slice(content.as_bytes())),
        blobs: blobs.to_vec(),
        children: Vec::new(),
    }
}

fn index(content: &str, children: &[Digest]) -> ManifestFacts {
    ManifestFacts { children: children.to_vec(), ..facts(content, &[]) }
}

fn pin(repository: &str, facts: ManifestFacts, tags: &[&str]) -> Pin {
    let tags = tags.iter().map(|text| tag(text)).collect();
    Pin {
        repository: name(repository),
        facts,
        tags,
        immutable: Vec::new(),
        strict: false,
        awaited: Vec::new(),
        generation: fresh(),
        copied: None,
        ledger: None,
    }
}

fn link_key(repository: &str, digest: Digest, generation: Generation) -> Key {
    Key::Link { repository: name(repository), digest, generation }
}

fn manifest_key(repository: &str, pinned: &Pinned) -> Key {
    let (digest, generation) = (pinned.pin.facts.digest, pinned.pin.generation);
    Key::Manifest { repository: name(repository), digest, generation }
}

fn marker_key(repository: &str, pinned: &Pinned) -> Key {
    let (digest, generation) = (pinned.pin.facts.digest, pinned.pin.generation);
    Key::ManifestDeleted { repository: name(repository), digest, generation }
}

/// The record of the only tag of a push.
fn tag_key(repository: &str, pinned: &Pinned) -> Key {
    let record = pinned.tags.first().expect("it has a tag").clone();
    Key::Tag {
        repository: name(repository),
        tag: record.tag,
        version: record.version,
        generation: record.generation,
        target: Some(pinned.pin.facts.digest),
    }
}
