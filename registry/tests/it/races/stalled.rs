// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A push stalls at each of its requests in turn. Meanwhile somebody finishes or takes back what it left, or the database
//! fails over and is compared with the bucket. If it is acknowledged after that, a promotion is in the ledger, and an
//! immutable tag names what it was given to, whoever else pushed to it meanwhile.

use std::time::Duration;

use stowage_oci::{Name, Reference, Tag};
use stowage_registry::domain::{Ending, Error, PromotionMode};
use stowage_registry::meta::Timings;
use stowage_registry::ops::gate::Gate;

use super::bucket::Manners;
use super::clients::{push_image, put_image};
use super::database::{Disaster, Kind};
use super::promotions::{request, rule};
use super::times::Times;
use super::world::{PROD, STRICT, STRICTS, Setting, World};
use super::{check, reader, setting, workers};

/// What happens while the promotion stalls.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// Its time is over.
    Reaped,
    /// The database forgets it, and everything is compared.
    FailedOver,
}

async fn happens(world: &World, meanwhile: Meanwhile) {
    match meanwhile {
        Meanwhile::Reaped => tokio::time::sleep(world.setting.times.timings.intent).await,
        Meanwhile::FailedOver => {
            world.strike(Disaster::Failover).await;
            workers::compare(world).await;
        }
    }
    workers::settle(world).await;
}

/// Does `work`, which `stalls` at a request while something else happens. Also whether it came to its end before.
async fn held<T>(
    stalls: Gate,
    work: impl Future<Output = T>,
    meanwhile: impl Future<Output = ()>,
) -> (T, bool) {
    tokio::pin!(work);
    let ended = tokio::select! {
        outcome = &mut work => Some(outcome),
        () = stalls.reached() => None,
    };
    if let Some(outcome) = ended {
        meanwhile.await;
        return (outcome, true);
    }
    // It is driven all the same: what it holds beside the request others may need.
    let meanwhile = async {
        meanwhile.await;
        stalls.release();
    };
    let (outcome, ()) = tokio::join!(work, meanwhile);
    (outcome, false)
}

/// A promotion stalls at its `n`-th request. Whether it came to its end before.
async fn promotion(world: &World, n: u64, meanwhile: Meanwhile) -> bool {
    let (one, other) = (world.somebody_held().await, world.somebody().await);
    let (source, target): (Name, Name) = (STRICT.parse().unwrap(), PROD.parse().unwrap());
    let tag: Tag = "v1".parse().unwrap();
    let pushed = push_image(&other, &source, &tag, "blob").await.unwrap();
    world.database.keep().await;

    let (rule, request) = (rule(true), request("held".to_owned(), &source, &tag, pushed));
    let promoting = one.domain.promote(&rule, &request, PromotionMode::Promote);
    let (outcome, was_over) = Box::pin(held(one.wire.hold(n), promoting, happens(world, meanwhile))).await;
    match outcome.map(|promotion| promotion.ending) {
        Ok(Ending::Promoted | Ending::AlreadyPromoted) => {
            world.count("promotions");
            world.promised.promise(&request);
            match other.domain.manifest(&target, &Reference::Tag(tag), false).await {
                Ok(named) if named.digest == pushed => {}
                read => world.violation(format!("it was promoted, and is {read:?}")),
            }
        }
        // What was mounted is collected after a while, and not every step begins anew in another epoch.
        Err(Error::ReferencesMissing(_) | Error::DatabaseAway(_)) => world.count("refused"),
        other => world.violation(format!("promotion: {other:?}")),
    }
    was_over
}

/// A push of what is there to an immutable tag stalls at its `n`-th request; another pushes something else to it.
async fn first_push(world: &World, n: u64, meanwhile: Meanwhile) -> bool {
    let (one, other) = (world.somebody_held().await, world.somebody().await);
    let (repository, once): (Name, Tag) = (STRICT.parse().unwrap(), "once-1".parse().unwrap());
    let ours = push_image(&other, &repository, &"ours".parse().unwrap(), "ours").await.unwrap();
    let theirs = push_image(&other, &repository, &"theirs".parse().unwrap(), "theirs").await.unwrap();
    world.database.keep().await;

    let mut rival = None;
    let pushing = put_image(&one, &repository, &once, "ours");
    let rivalled = async {
        happens(world, meanwhile).await;
        rival = Some(put_image(&other, &repository, &once, "theirs").await);
    };
    let (outcome, was_over) = Box::pin(held(one.wire.hold(n), pushing, rivalled)).await;
    let which = (repository, once);
    for (digest, pushed) in [(ours, outcome), (theirs, rival.expect("it was pushed"))] {
        match pushed {
            Ok(_) => {
                let named = world.releases.names(&which, digest);
                named.unwrap_or_else(|why| world.violation(why));
            }
            Err(Error::TagImmutable { .. } | Error::ReferencesMissing(_)) => world.count("refused"),
            Err(error) => world.violation(format!("push: {error:?}")),
        }
    }
    match other.domain.manifest(&which.0, &Reference::Tag(which.1.clone()), false).await {
        Ok(named) => {
            let same = world.releases.names(&which, named.digest);
            same.unwrap_or_else(|why| world.violation(why));
        }
        Err(error) => world.violation(format!("read: {error:?}")),
    }
    was_over
}

/// What stalls.
#[derive(Clone, Copy, Debug)]
enum What {
    Promotion,
    FirstPush,
}

async fn every_stall(kind: Kind, what: What, meanwhile: Meanwhile) {
    let mut found = Vec::new();
    let mut stalls = 0;
    for n in 1.. {
        // Each in a world of its own: the digests are the same.
        let manners = Manners::default();
        // Markers outlive whoever stalls.
        let timings = Timings { marker: Duration::from_hours(1), ..Times::default().timings };
        let times = Times { timings, ..Times::default() };
        let setting = Setting { manners, crashes: 0.0, ..setting(kind, times, n) };
        let world = World::new(&setting).await;
        let was_over = match what {
            What::Promotion => Box::pin(promotion(&world, n, meanwhile)).await,
            What::FirstPush => Box::pin(first_push(&world, n, meanwhile)).await,
        };
        workers::settle(&world).await;
        if world.counted("refused") > 0 && world.counted("failovers") > 0 {
            // Of whoever gave up records may be left that no row knows. The next comparison finds them.
            world.database.keep().await;
            world.strike(Disaster::Failover).await;
            workers::compare(&world).await;
            workers::settle(&world).await;
        }
        let (rows, contents) = (world.database.rows().await, world.bucket.contents().await);
        let read = reader::read(&contents);
        let mut wrong = check::differences(&rows, &read, &STRICTS);
        // Of whoever was late a record may be left that the next comparison finds.
        wrong.extend(check::ledger(&rows, &read, &world.promised.all(), |_| true));
        wrong.extend(world.violations());
        found.extend(wrong.into_iter().map(|what| format!("held at {n}: {what}")));
        if was_over {
            break;
        }
        stalls += 1;
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(stalls >= 4, "{stalls}");
}

macro_rules! on_both {
    ($($claim:ident: $what:ident;)*) => {
        mod postgres {
            use super::{Kind, Meanwhile, What, every_stall};

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                every_stall(Kind::Postgres, What::$what, Meanwhile::Reaped).await;
                every_stall(Kind::Postgres, What::$what, Meanwhile::FailedOver).await;
            })*
        }

        // There whoever stalls ends with the database.
        mod sqlite {
            use super::{Kind, Meanwhile, What, every_stall};

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                every_stall(Kind::Sqlite, What::$what, Meanwhile::Reaped).await;
            })*
        }
    };
}

on_both! {
    n5_a_promotion_that_stalls_is_in_the_ledger_if_it_is_acknowledged: Promotion;
    w285_a_first_push_that_stalls_is_not_acknowledged_if_another_was_quicker: FirstPush;
}
