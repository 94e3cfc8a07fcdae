// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploads: who sees them, who holds them, what they leave.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use stowage_oci::Algorithm;
use uuid::Uuid;

use super::{DAY, Fixture, PRINCIPAL, World, digest, fresh, name};
use crate::key::{Form, Generation, Key, Part};
use crate::meta::{
    CancelOutcome, LeaseOutcome, LeasedUpload, Multipart, NewUpload, Plan, Progress, Tail, UploadKey,
};

/// Longer than a lease.
const LATER: Duration = Duration::from_secs(61);

fn multipart() -> Multipart {
    Multipart { id: "m-1".to_owned(), part_size: 16 << 20 }
}

fn tail_step(generation: Generation, lease: u32) -> String {
    format!("-{}", Key::UploadTail { generation, lease })
}

fn staged(offset: u64, tails: &[Tail]) -> Progress {
    Progress { offset, hash: vec![1, 2, 3], tails: tails.to_vec(), ..Progress::default() }
}

pub async fn an_upload_is_seen_only_by_its_repository_and_principal(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a/b").await;
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), Some(0));
    let elsewhere = UploadKey { repository: name("a/c"), ..key.clone() };
    let by_another = UploadKey { principal: "else".to_owned(), ..key.clone() };
    for other in [&elsewhere, &by_another] {
        assert_eq!(world.store.upload_offset(other).await.expect("offset"), None);
        assert!(world.lease_as(other, Uuid::new_v4()).await.is_none());
        assert_eq!(world.store.cancel_upload(other).await.expect("cancel"), CancelOutcome::Unknown);
    }
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), Some(0));
}

pub async fn a_leased_upload_is_busy_for_another_request(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    assert_eq!((upload.lease, upload.algorithm, upload.plan), (1, Algorithm::Sha256, None));
    let second = world.store.lease_upload(&key, Uuid::new_v4()).await.expect("lease");
    assert!(matches!(second, LeaseOutcome::Busy { offset: 0 }), "{second:?}");
    world.store.release_upload(key.id, token).await.expect("release");
    let (upload, _) = world.lease(&key).await;
    assert_eq!(upload.lease, 2);
}

/// The answer to the first attempt may have been lost.
pub async fn a_request_that_repeats_its_lease_is_given_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (_, token) = world.lease(&key).await;
    assert!(world.lease_as(&key, token).await.is_some());
    assert!(world.store.extend_lease(key.id, token).await.expect("extend"));
}

pub async fn a_lease_that_ran_out_is_taken_over_and_its_token_is_worthless(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (_, old) = world.lease(&key).await;
    world.rows.pass(LATER).await;
    let (_, new) = world.lease(&key).await;
    let (id, progress) = (key.id, staged(5, &[]));
    let plan = Plan { digest: digest("x"), form: Some(Form::Inline), size: 1 };
    assert!(!world.store.store_progress(id, old, &progress).await.expect("progress"));
    assert!(!world.store.record_multipart(id, old, &multipart()).await.expect("multipart"));
    assert!(!world.store.record_plan(id, old, &plan, &progress).await.expect("plan"));
    assert!(!world.store.restart_upload(id, old, fresh()).await.expect("restart"));
    assert!(!world.store.extend_lease(id, old).await.expect("extend"));
    assert!(!world.store.drop_upload(id, old).await.expect("drop"));
    world.store.release_upload(id, old).await.expect("release");
    assert!(world.store.extend_lease(id, new).await.expect("extend"), "the new holder is not disturbed");
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), Some(0));
}

pub async fn progress_is_what_the_next_lease_reads(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    assert!(world.store.record_multipart(key.id, token, &multipart()).await.expect("multipart"));
    let part = |number| Part { number, size: 16 << 20, etag: format!("\"{number}\"") };
    let progress = Progress {
        offset: (16 << 20) + 9,
        parts: vec![part(1)],
        spec: Some(part(2)),
        hash: vec![0, 255, 7],
        tails: vec![Tail { lease: upload.lease, size: 9 }],
    };
    assert!(world.store.store_progress(key.id, token, &progress).await.expect("progress"));
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), Some(progress.offset));
    let (next, _) = world.lease(&key).await;
    assert_eq!(next.progress, progress);
    assert_eq!(next.multipart, Some(multipart()));
    assert_eq!((next.generation, next.lease), (upload.generation, upload.lease + 1));
}

pub async fn only_its_holder_extends_a_lease(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (_, token) = world.lease(&key).await;
    world.rows.pass(Duration::from_secs(40)).await;
    assert!(world.store.extend_lease(key.id, token).await.expect("extend"));
    assert!(!world.store.extend_lease(key.id, Uuid::new_v4()).await.expect("extend"));
    world.rows.pass(Duration::from_secs(40)).await;
    assert!(world.lease_as(&key, Uuid::new_v4()).await.is_none(), "it still holds");
}

pub async fn a_closing_upload_can_only_be_closed_as_planned(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (_, token) = world.lease(&key).await;
    let plan = Plan { digest: digest("x"), form: Some(Form::Tail(1)), size: 7 };
    let other = Plan { size: 8, ..plan };
    let progress = staged(7, &[Tail { lease: 1, size: 7 }]);
    assert!(world.store.record_plan(key.id, token, &plan, &progress).await.expect("plan"));
    assert!(world.store.record_plan(key.id, token, &plan, &progress).await.expect("the same again"));
    assert!(!world.store.record_plan(key.id, token, &other, &progress).await.expect("another"));
    assert!(!world.store.store_progress(key.id, token, &staged(9, &[])).await.expect("progress"));
    assert!(!world.store.restart_upload(key.id, token, fresh()).await.expect("restart"));
    world.rows.pass(LATER).await;
    let (taken_over, _) = world.lease(&key).await;
    assert_eq!((taken_over.plan, taken_over.progress), (Some(plan), progress));
}

/// An upload that a request with the given lease has left with one tail, and how it may be closed.
async fn paused(world: &World) -> (UploadKey, u32, Plan) {
    let key = world.open("a").await;
    let (LeasedUpload { lease, .. }, token) = world.lease(&key).await;
    let progress = staged(7, &[Tail { lease, size: 7 }]);
    assert!(world.store.store_progress(key.id, token, &progress).await.expect("progress"));
    (key, lease, Plan { digest: digest("x"), form: Some(Form::Tail(lease)), size: 7 })
}

pub async fn a_paused_upload_that_nobody_has_taken_since_is_taken_and_planned_at_once(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (key, lease, plan) = paused(&world).await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    assert!(world.store.plan_paused(key.id, lease, first, &plan).await.expect("plan"));
    assert!(!world.store.plan_paused(key.id, lease, second, &plan).await.expect("another request"));
    assert!(world.store.extend_lease(key.id, first).await.expect("extend"), "the first one holds it");
    assert!(world.lease_as(&key, second).await.is_none());
    world.rows.pass(LATER).await;
    let (taken_over, _) = world.lease(&key).await;
    assert_eq!((taken_over.lease, taken_over.plan), (lease + 1, Some(plan)));
    assert_eq!(taken_over.progress, staged(7, &[Tail { lease, size: 7 }]));
}

pub async fn a_paused_upload_that_somebody_has_taken_since_is_not_planned(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (key, lease, plan) = paused(&world).await;
    let (_, token) = world.lease(&key).await;
    assert!(!world.store.plan_paused(key.id, lease, Uuid::new_v4(), &plan).await.expect("held"));
    world.store.release_upload(key.id, token).await.expect("release");
    assert!(!world.store.plan_paused(key.id, lease, Uuid::new_v4(), &plan).await.expect("let go"));
    assert_eq!(world.lease(&key).await.0.plan, None);
}

pub async fn a_paused_upload_that_expired_or_ended_is_not_planned(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let (expired, lease, plan) = paused(&world).await;
    world.rows.pass(2 * DAY).await;
    assert!(!world.store.plan_paused(expired.id, lease, Uuid::new_v4(), &plan).await.expect("expired"));
    let (ended, lease, plan) = paused(&world).await;
    assert_eq!(world.store.cancel_upload(&ended).await.expect("cancel"), CancelOutcome::Cancelled);
    assert!(!world.store.plan_paused(ended.id, lease, Uuid::new_v4(), &plan).await.expect("ended"));
}

pub async fn a_multipart_upload_is_recorded_once(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (_, token) = world.lease(&key).await;
    let other = Multipart { id: "m-2".to_owned(), ..multipart() };
    assert!(world.store.record_multipart(key.id, token, &multipart()).await.expect("multipart"));
    assert!(world.store.record_multipart(key.id, token, &multipart()).await.expect("the same again"));
    assert!(!world.store.record_multipart(key.id, token, &other).await.expect("another"));
}

pub async fn a_restarted_upload_queues_what_its_old_generation_left(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    assert!(world.store.record_multipart(key.id, token, &multipart()).await.expect("multipart"));
    let progress = staged(4, &[Tail { lease: 1, size: 4 }]);
    assert!(world.store.store_progress(key.id, token, &progress).await.expect("progress"));
    let (_, token) = world.lease(&key).await;
    let anew = fresh();
    assert!(world.store.restart_upload(key.id, token, anew).await.expect("restart"));
    let steps = world.steps().await;
    assert!(steps.contains(&tail_step(upload.generation, 1)), "{steps:?}");
    assert!(steps.contains(&format!("-{}", Key::Upload { generation: upload.generation })), "{steps:?}");
    world.store.release_upload(key.id, token).await.expect("release");
    let (next, _) = world.lease(&key).await;
    assert_eq!((next.generation, next.multipart, next.progress), (anew, None, Progress::default()));
}

pub async fn a_dropped_upload_queues_all_that_its_requests_may_have_staged(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    // The first stages and says so, the second dies, the third lets go, the fourth ends the upload.
    let (upload, token) = world.lease(&key).await;
    let progress = staged(4, &[Tail { lease: 1, size: 4 }]);
    assert!(world.store.store_progress(key.id, token, &progress).await.expect("progress"));
    world.lease(&key).await;
    world.rows.pass(LATER).await;
    let (_, token) = world.lease(&key).await;
    world.store.release_upload(key.id, token).await.expect("release");
    let (_, token) = world.lease(&key).await;
    assert!(world.store.drop_upload(key.id, token).await.expect("drop"));
    let steps = world.steps().await;
    for lease in 1..=4 {
        assert!(steps.contains(&tail_step(upload.generation, lease)), "{lease}: {steps:?}");
    }
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), None);
}

pub async fn cancelling_ends_an_upload_unless_a_request_holds_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    let (upload, token) = world.lease(&key).await;
    assert!(world.store.record_multipart(key.id, token, &multipart()).await.expect("multipart"));
    assert_eq!(world.store.cancel_upload(&key).await.expect("cancel"), CancelOutcome::Busy);
    world.store.release_upload(key.id, token).await.expect("release");
    assert_eq!(world.store.cancel_upload(&key).await.expect("cancel"), CancelOutcome::Cancelled);
    assert_eq!(world.store.cancel_upload(&key).await.expect("cancel"), CancelOutcome::Unknown);
    let steps = world.steps().await;
    assert!(steps.contains(&tail_step(upload.generation, 1)), "{steps:?}");
    let target = Key::Upload { generation: upload.generation };
    let abort = steps.iter().position(|step| *step == format!("!{target} m-1"));
    assert!(abort < steps.iter().position(|step| *step == format!("-{target}")), "{steps:?}");
    assert!(abort.is_some(), "{steps:?}");
}

pub async fn an_upload_expires_after_its_last_progress(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let key = world.open("a").await;
    world.rows.pass(DAY / 2).await;
    let (_, token) = world.lease(&key).await;
    assert!(world.store.store_progress(key.id, token, &staged(3, &[])).await.expect("progress"));
    world.rows.pass(DAY / 2 + LATER).await;
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), Some(3));
    world.rows.pass(DAY / 2).await;
    assert_eq!(world.store.upload_offset(&key).await.expect("offset"), None);
    assert!(world.lease_as(&key, Uuid::new_v4()).await.is_none());
    assert_eq!(world.store.cancel_upload(&key).await.expect("cancel"), CancelOutcome::Unknown);
}

pub async fn a_principal_has_only_so_many_open_uploads(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let upload = |principal: &str| NewUpload {
        repository: name("a/b"),
        principal: principal.to_owned(),
        algorithm: Algorithm::Sha512,
        generation: fresh(),
    };
    let open =
        async |principal| world.store.open_upload(&upload(principal), DAY, 2).await.expect("open").is_some();
    assert!(open(PRINCIPAL).await);
    assert!(open(PRINCIPAL).await);
    assert!(!open(PRINCIPAL).await);
    assert!(open("else").await);
    world.rows.pass(DAY + LATER).await;
    assert!(open(PRINCIPAL).await, "expired uploads do not count");
}
