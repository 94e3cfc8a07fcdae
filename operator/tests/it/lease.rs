// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The lease as a model on paused time, and once against a real API server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use stowage_operator::{
    lease::{DURATION, Elector, Lost, RENEW_DEADLINE, RETRY},
    ops::clock,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::support::{leases::Leases, scene::Scene};

/// A clock that is years off: what the record says must not matter.
fn skewed() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn elector(leases: &Leases, name: &str, now: fn() -> Timestamp) -> Elector {
    Elector::new(leases.client(), "stowage-system", name.to_owned(), now)
}

#[tokio::test(start_paused = true)]
async fn never_two_hold_the_lease_whatever_the_network_does() {
    let mut terms = 0;
    for seed in 0..60 {
        let trouble = [0.0, 0.1, 0.4][usize::try_from(seed % 3).unwrap()];
        let leases = Leases::new(seed, trouble);
        let (holders, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut contenders = JoinSet::new();
        for contender in 0..3_u64 {
            let (leases, holders, count) = (leases.clone(), Arc::clone(&holders), Arc::clone(&count));
            contenders.spawn(async move {
                let mut chance = StdRng::seed_from_u64(seed * 10 + contender);
                for term in 0.. {
                    let now = if contender == 0 { skewed } else { clock::now };
                    let mut elector = elector(&leases, &format!("{contender}-{term}"), now);
                    elector.acquire().await;
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "seed {seed}: two holders");
                    count.fetch_add(1, Ordering::SeqCst);
                    // It leads for a while, and then releases, dies, or goes on until it loses the lease.
                    let long = Duration::from_secs(chance.random_range(1..90));
                    let lost = timeout(long, elector.hold()).await.is_ok();
                    holders.fetch_sub(1, Ordering::SeqCst);
                    if !lost && chance.random_bool(0.5) {
                        elector.release().await;
                    }
                }
            });
        }
        sleep(Duration::from_mins(20)).await;
        assert!(contenders.try_join_next().is_none(), "a contender ended");
        terms += count.load(Ordering::SeqCst);
        assert!(count.load(Ordering::SeqCst) > 3, "seed {seed}: nobody leads");
    }
    println!("{terms} terms");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_is_followed_after_the_lease_has_run_out() {
    let leases = Leases::new(1, 0.0);
    let mut first = elector(&leases, "first", clock::now);
    first.acquire().await;
    drop(first);
    let begun = Instant::now();
    elector(&leases, "second", skewed).acquire().await;
    assert!(begun.elapsed() >= DURATION);
    assert!(begun.elapsed() <= DURATION + 2 * RETRY);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let leases = Leases::new(1, 0.0);
    let mut first = elector(&leases, "first", clock::now);
    first.acquire().await;
    first.release().await;
    assert_eq!(leases.holder().as_deref(), Some(""));
    let begun = Instant::now();
    elector(&leases, "second", clock::now).acquire().await;
    assert!(begun.elapsed() < RETRY);
}

#[tokio::test(start_paused = true)]
async fn a_holder_without_a_server_gives_up_before_anybody_else_may_take_over() {
    let leases = Leases::new(1, 0.0);
    let mut holder = elector(&leases, "holder", clock::now);
    holder.acquire().await;
    leases.cut();
    let begun = Instant::now();
    assert_eq!(holder.hold().await, Lost::NotRenewed);
    assert!(begun.elapsed() <= RENEW_DEADLINE + Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_keeps_one_holder() {
    let Some(scene) = Scene::set().await else { return };
    let new = |name: &str| Elector::new(scene.client.clone(), &scene.namespace, name.into(), clock::now);
    let (mut first, mut second) = (new("first"), new("second"));
    first.acquire().await;
    assert!(timeout(Duration::from_secs(3), second.acquire()).await.is_err());
    assert!(timeout(Duration::from_secs(5), first.hold()).await.is_err(), "it is renewed");
    first.release().await;
    timeout(Duration::from_secs(5), second.acquire()).await.unwrap();
    assert_eq!(
        timeout(Duration::from_secs(5), first.hold()).await,
        Ok(Lost::NotRenewed),
        "it has given it back"
    );
}
