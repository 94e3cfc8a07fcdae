// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The database fails over to a state in which something was not yet done that clients were told of, and somebody
//! goes on from there. (Races 17 and 21 of the protocol.)

use bytes::Bytes;
use stowage_oci::{Algorithm, Digest, Name, Reference, Tag};
use stowage_registry::domain::{Chunk, Error};
use stowage_registry::meta::UploadKey;

use super::bucket::Manners;
use super::clients::{PRINCIPAL, chunk, digest, push_image};
use super::database::{Disaster, Kind};
use super::times::Times;
use super::world::{Actor, LOOSE, Setting, World};
use super::{check, reader, setting, workers};

async fn world(kind: Kind) -> std::sync::Arc<World> {
    let manners = Manners::default();
    World::new(&Setting { manners, part_size: 4, crashes: 0.0, ..setting(kind, Times::default(), 1) }).await
}

fn at(offset: usize, bytes: &[u8]) -> Chunk {
    Chunk { start: Some(offset as u64), ..chunk(&Bytes::copy_from_slice(bytes)) }
}

async fn is_whole(world: &World) {
    workers::settle(world).await;
    let (rows, contents) = (world.database.rows().await, world.bucket.contents().await);
    let found = check::differences(&rows, &reader::read(&contents), &[]);
    assert!(found.is_empty(), "{found:#?}");
    assert!(world.violations().is_empty(), "{:#?}", world.violations());
}

/// An upload of which `known` bytes are in the state that comes back became a blob; somebody sends other bytes.
async fn goes_on_with_other_bytes(kind: Kind, known: usize) {
    let world = world(kind).await;
    let one = world.somebody().await;
    let repository: Name = LOOSE.parse().unwrap();
    let id = one.domain.open_upload(&repository, PRINCIPAL, Algorithm::Sha256).await.unwrap();
    let key = UploadKey { id, repository, principal: PRINCIPAL.to_owned() };
    let (ours, theirs) = (b"common-ours", b"common-theirs");
    if known > 0 {
        one.domain.append(&key, at(0, &ours[..known])).await.unwrap();
    }
    world.database.keep().await;
    // Staged by the lease that comes next once more.
    one.domain.append(&key, at(known, &ours[known..=known])).await.unwrap();
    one.domain.close(&key, &digest(ours), at(known + 1, &ours[known + 1..])).await.unwrap();
    drop(one);
    world.strike(Disaster::Failover).await;

    let other = world.somebody().await;
    let went_on = async {
        other.domain.append(&key, at(known, &theirs[known..known + 2])).await?;
        other.domain.close(&key, &digest(theirs), at(known + 2, &theirs[known + 2..])).await
    };
    match went_on.await {
        // A multipart upload that was completed begins anew.
        Ok(()) | Err(Error::NotAtOffset { offset: 0 }) => {}
        Err(error) => panic!("{error:?}"),
    }
    other.domain.blob(&key.repository, &digest(ours), false).await.unwrap();
    is_whole(&world).await;
}

/// A client that has sent everything but the last request notices nothing.
async fn goes_on_with_its_own(kind: Kind, known: usize) {
    let world = world(kind).await;
    let one = world.somebody().await;
    let repository: Name = LOOSE.parse().unwrap();
    let id = one.domain.open_upload(&repository, PRINCIPAL, Algorithm::Sha256).await.unwrap();
    let key = UploadKey { id, repository, principal: PRINCIPAL.to_owned() };
    let ours = b"common-ours";
    one.domain.append(&key, at(0, &ours[..known])).await.unwrap();
    world.database.keep().await;
    drop(one);
    world.strike(Disaster::Failover).await;
    let other = world.somebody().await;
    if known < ours.len() {
        assert_eq!(other.domain.append(&key, at(known, &ours[known..])).await.unwrap(), ours.len() as u64);
    }
    other.domain.close(&key, &digest(ours), Chunk::empty()).await.unwrap();
    other.domain.blob(&key.repository, &digest(ours), false).await.unwrap();
    is_whole(&world).await;
}

async fn tagged(actor: &Actor, repository: &Name, tag: &Tag) -> Option<Digest> {
    match actor.domain.manifest(repository, &Reference::Tag(tag.clone()), false).await {
        Ok(found) => Some(found.digest),
        Err(Error::ManifestUnknown) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// A deletion whose row was lost while its tombstone was on its way, and the tag was compared meanwhile.
async fn a_deletion_is_overtaken(walked: bool) {
    let world = world(Kind::Postgres).await;
    let (one, other) = (world.somebody_held().await, world.somebody().await);
    let (repository, tag): (Name, Tag) = (LOOSE.parse().unwrap(), "v1".parse().unwrap());
    let pushed = push_image(&other, &repository, &tag, "blob").await.unwrap();
    assert_eq!(tagged(&one, &repository, &tag).await, Some(pushed));
    world.database.keep().await;

    // The first request is the deletion's transaction, the second puts the tombstone.
    let gate = one.wire.hold(2);
    let deleting = one.domain.delete_tag(&repository, &tag);
    tokio::pin!(deleting);
    tokio::select! {
        outcome = &mut deleting => panic!("not held: {outcome:?}"),
        () = gate.reached() => {}
    }
    world.strike(Disaster::Failover).await;
    assert_eq!(tagged(&other, &repository, &tag).await, Some(pushed), "the bucket shows nothing else yet");
    if walked {
        workers::settle(&world).await;
    }
    gate.release();
    deleting.await.unwrap();
    assert_eq!(tagged(&other, &repository, &tag).await, None, "it was acknowledged");
    is_whole(&world).await;
}

macro_rules! on_both {
    ($($claim:ident: $run:ident($known:expr);)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$run(super::Kind::Postgres, $known).await;
            })*
        }

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$run(super::Kind::Sqlite, $known).await;
            })*
        }
    };
}

on_both! {
    l_53_an_upload_that_had_no_bytes_never_writes_over_what_it_became: goes_on_with_other_bytes(0);
    l_53_a_staged_upload_never_writes_over_what_it_became: goes_on_with_other_bytes(2);
    l_53_a_multipart_upload_never_writes_over_what_it_became: goes_on_with_other_bytes(6);
    w207_a_staged_upload_survives_a_failover: goes_on_with_its_own(2);
    w207_a_multipart_upload_survives_a_failover: goes_on_with_its_own(6);
    w207_an_upload_that_lacks_its_last_request_survives_a_failover: goes_on_with_its_own(11);
    w207_a_small_upload_that_lacks_its_last_request_survives_a_failover: goes_on_with_all_of_it(());
}

/// Less than a part, all of it staged.
async fn goes_on_with_all_of_it(kind: Kind, (): ()) {
    let world = world(kind).await;
    let one = world.somebody().await;
    let repository: Name = LOOSE.parse().unwrap();
    let id = one.domain.open_upload(&repository, PRINCIPAL, Algorithm::Sha256).await.unwrap();
    let key = UploadKey { id, repository, principal: PRINCIPAL.to_owned() };
    one.domain.append(&key, at(0, b"all")).await.unwrap();
    world.database.keep().await;
    drop(one);
    world.strike(Disaster::Failover).await;
    let other = world.somebody().await;
    other.domain.close(&key, &digest(b"all"), Chunk::empty()).await.unwrap();
    other.domain.blob(&key.repository, &digest(b"all"), false).await.unwrap();
    is_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_75_a_tag_that_was_deleted_while_the_database_failed_over_stays_deleted() {
    Box::pin(a_deletion_is_overtaken(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_75_a_tag_that_was_deleted_stays_deleted_when_the_walk_was_quicker() {
    Box::pin(a_deletion_is_overtaken(true)).await;
}
