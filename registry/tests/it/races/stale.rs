// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A writer that stalls at each of its requests in turn while it closes an upload; its lease runs out, and
//! another one sends other bytes of the same length and closes, too. (Race 28 of the protocol.)

use std::time::Duration;

use bytes::Bytes;
use stowage_oci::{Algorithm, Name};
use stowage_registry::domain::{Chunk, Error};
use stowage_registry::meta::UploadKey;

use super::bucket::Manners;
use super::clients::{chunk, digest};
use super::database::Kind;
use super::sabotage::{self, Sabotage};
use super::times::Times;
use super::world::{Actor, LOOSE, Setting, World};
use super::{UNRELIABLE, reader, setting};

const PRINCIPAL: &str = "model";
/// What is durable before the two part.
const COMMON: &str = "common";

/// What the two send next.
#[derive(Clone, Copy)]
struct Case {
    /// The one that stalls; nothing: its replica remembers the upload, and takes it as it plans.
    ours: &'static str,
    theirs: &'static str,
    part_size: u64,
    /// At least so many requests are there to stall at.
    stalls: u64,
}

/// Bytes of the same length, some parts of them stored.
const SENT: Case = Case { ours: "oooo", theirs: "xxxx", part_size: 4, stalls: 6 };
const REMEMBERED: Case = Case { ours: "", theirs: "xxxx", part_size: 16, stalls: 4 };

fn at(offset: usize, bytes: &[u8]) -> Chunk {
    Chunk { start: Some(offset as u64), ..chunk(&Bytes::copy_from_slice(bytes)) }
}

fn expected(error: &Error) -> bool {
    matches!(
        error,
        Error::NotAtOffset { .. }
            | Error::Overtaken
            | Error::UploadUnknown
            | Error::DigestMismatch { .. }
            | Error::StoreAway(_)
    )
}

/// An upload with the common bytes.
async fn begun(one: &Actor) -> UploadKey {
    let repository: Name = LOOSE.parse().unwrap();
    let id = one.domain.open_upload(&repository, PRINCIPAL, Algorithm::Sha256).await.unwrap();
    let key = UploadKey { id, repository, principal: PRINCIPAL.to_owned() };
    one.domain.append(&key, at(0, COMMON.as_bytes())).await.unwrap();
    key
}

/// The first writer stalls at its `n`-th request. Whether it came to its end before.
async fn meet(world: &World, case: Case, n: u64) -> bool {
    let (one, other) = (world.somebody_held().await, world.somebody_held().await);
    let key = begun(&one).await;
    let [ours, theirs] = [case.ours, case.theirs].map(|last| Bytes::from(COMMON.to_owned() + last));

    let gate = one.wire.hold(n);
    let ours_digest = digest(&ours);
    let closing = one.domain.close(&key, &ours_digest, at(COMMON.len(), case.ours.as_bytes()));
    tokio::pin!(closing);
    let ended = tokio::select! {
        outcome = &mut closing => Some(outcome),
        () = gate.reached() => None,
    };
    // Until its lease is over the other waits, as a client does.
    let theirs_closed =
        other.domain.close(&key, &digest(&theirs), at(COMMON.len(), case.theirs.as_bytes())).await;
    gate.release();
    let was_over = ended.is_some();
    let ours_closed = match ended {
        Some(outcome) => outcome,
        None => closing.await,
    };
    for outcome in [&ours_closed, &theirs_closed] {
        match outcome {
            Ok(()) => world.count("uploads closed"),
            Err(error) if expected(error) => world.count("refused"),
            Err(error) => world.violation(format!("held at {n}: {error:?}")),
        }
    }
    for (bytes, closed) in [(&ours, &ours_closed), (&theirs, &theirs_closed)] {
        if closed.is_ok()
            && let Err(error) = one.domain.blob(&key.repository, &digest(bytes), false).await
        {
            world.violation(format!("held at {n}: acknowledged, and not there: {error:?}"));
        }
    }
    was_over
}

/// A bucket that does at once what it is told.
fn steady(kind: Kind, part_size: u64, sabotage: Sabotage) -> Setting {
    let manners = Manners {
        delay: Duration::ZERO,
        repeats_delete: 0.0,
        repeats_put: 0.0,
        repeats_part: 0.0,
        loses_answer: 0.0,
        ..UNRELIABLE
    };
    Setting { manners, part_size, crashes: 0.0, sabotage, ..setting(kind, Times::uploads(), 1) }
}

async fn every_stall(kind: Kind, case: Case, sabotage: Sabotage) -> Vec<String> {
    let setting = steady(kind, case.part_size, sabotage);
    let mut found = Vec::new();
    let mut stalls = 0;
    for n in 1.. {
        // Each in a world of its own: the digests are the same.
        let world = World::new(&setting).await;
        let was_over = Box::pin(meet(&world, case, n)).await;
        found.extend(world.violations());
        let bucket = reader::read(&world.bucket.contents().await);
        found.extend(bucket.wrong.iter().map(|key| format!("held at {n}: {key} has other bytes")));
        if was_over {
            break;
        }
        stalls += 1;
    }
    assert!(stalls >= case.stalls, "{stalls}");
    found
}

async fn holds(kind: Kind, case: Case) {
    let found = every_stall(kind, case, &[]).await;
    assert!(found.is_empty(), "{found:#?}");
}

async fn breaks(kind: Kind) {
    let found = every_stall(kind, SENT, sabotage::nothing_is_planned(kind)).await;
    assert!(found.iter().any(|what| what.contains("other bytes")), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_78_a_stale_writer_closes_what_was_planned_and_nothing_else_in_postgres() {
    holds(Kind::Postgres, SENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_78_a_stale_writer_closes_what_was_planned_and_nothing_else_in_sqlite() {
    holds(Kind::Sqlite, SENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_78_who_closes_what_it_remembers_closes_that_and_nothing_else_in_postgres() {
    holds(Kind::Postgres, REMEMBERED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_78_who_closes_what_it_remembers_closes_that_and_nothing_else_in_sqlite() {
    holds(Kind::Sqlite, REMEMBERED).await;
}

/// Another replica has gone on with the upload.
async fn memory_is_no_proof(kind: Kind) {
    let world = World::new(&steady(kind, REMEMBERED.part_size, &[])).await;
    let (one, other) = (world.somebody_held().await, world.somebody().await);
    for digest_of in [COMMON, "commonxxxx"] {
        let key = begun(&one).await;
        other.domain.append(&key, at(COMMON.len(), b"xxxx")).await.unwrap();
        let claimed = digest(&Bytes::from(digest_of));
        let closed = one.domain.close(&key, &claimed, Chunk::empty()).await;
        let seen = one.domain.blob(&key.repository, &claimed, false).await;
        if digest_of == COMMON {
            assert!(matches!(closed, Err(Error::DigestMismatch { .. })), "{closed:?}");
            assert!(matches!(seen, Err(Error::BlobUnknown)), "{seen:?}");
        } else {
            closed.unwrap();
            assert_eq!(seen.unwrap().location.size, 10);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_closes_what_is_there_and_not_what_it_remembers_in_postgres() {
    Box::pin(memory_is_no_proof(Kind::Postgres)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_closes_what_is_there_and_not_what_it_remembers_in_sqlite() {
    Box::pin(memory_is_no_proof(Kind::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_53_without_a_plan_a_stale_writer_mixes_bytes_in_postgres() {
    breaks(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_53_without_a_plan_a_stale_writer_mixes_bytes_in_sqlite() {
    breaks(Kind::Sqlite).await;
}
