// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The model of the protocol: pushers, deleters, pullers, collectors and walkers over one bucket and one
//! database, with crashes at every step, late and repeated requests, and disasters, in production code.
//!
//! Seeds are printed and decide what everybody does; how it falls together is the machine's. `make test` runs
//! seconds of it, `make soak` 50,000 pushes and 20 disasters on each database.
//!
//! Clients also restore what was deleted, push tags that are immutable, and promote.
//!
//! The controls take a rule away and must find something: a model that finds nothing proves nothing.
//! Not here: mirrors, pull stamps, two databases that both believe they are the one.

mod bucket;
mod check;
mod clients;
mod controls;
mod database;
mod history;
mod pairs;
mod promotions;
mod reader;
mod releases;
mod restored;
mod run;
mod sabotage;
mod stale;
mod stalled;
mod times;
mod trash;
mod tripwire;
mod uploads;
mod wire;
mod workers;
mod world;

use std::time::Duration;

use bucket::Manners;
use database::{Disaster, Kind};
use run::{Part, Plan, run};
use times::Times;
use world::Setting;

/// Slow, late, repeated: what a bucket does without being broken.
const LATE: Manners = Manners {
    delay: Duration::from_millis(50),
    repeats_delete: 0.1,
    repeats_put: 0.03,
    repeats_part: 0.0,
    loses_answer: 0.0,
    wants_every_part: false,
    ignores_tags: false,
    hides_epochs: false,
    names_by_digest: false,
    forgets_ledger: false,
};

fn setting(kind: Kind, times: Times, seed: u64) -> Setting {
    Setting {
        kind,
        times,
        manners: LATE,
        part_size: 16,
        crashes: 0.01,
        seed,
        sabotage: &[],
        rewrite: None,
        promised: times.timings.lease,
        loses_rows: false,
    }
}

/// Unreliable in all ways, with parts as small as can be.
const UNRELIABLE: Manners = Manners {
    delay: Duration::from_millis(10),
    repeats_part: 0.05,
    loses_answer: 0.02,
    wants_every_part: true,
    ..LATE
};

fn registry(kind: Kind, times: Times, blobs: u32) -> Plan {
    let seed = seed();
    Plan {
        setting: setting(kind, times, seed),
        part: Part::Registry { blobs },
        least: Duration::from_secs(6),
        pushes: 100,
        strikes: 0,
        happens: &[],
        most: Duration::from_mins(2),
        must_get_there: false,
        disasters: None,
        kinds: &[Disaster::Failover, Disaster::Deep, Disaster::Rebuild],
        until: &[],
    }
}

fn with_disasters(plan: &Plan) -> Plan {
    let setting = Setting { loses_rows: true, ..plan.setting };
    Plan { setting, disasters: Some(Duration::from_millis(2500)), strikes: 3, ..*plan }
}

fn uploads(kind: Kind) -> Plan {
    let plan = registry(kind, Times::uploads(), 0);
    let setting = Setting { manners: UNRELIABLE, part_size: 4, crashes: 0.005, ..plan.setting };
    Plan { setting, part: Part::Uploads, ..plan }
}

/// `SEED` makes everybody do again what they did.
fn seed() -> u64 {
    let given = std::env::var("SEED").ok();
    given.map_or_else(rand::random, |text| text.parse().expect("SEED is a number"))
}

/// A soak of this length must get to its goals; a shorter one ends when its time is over.
const FULL: Duration = Duration::from_hours(4);

/// Of a soak, that much; otherwise seconds.
fn bounded(plan: &Plan, pushes: u64, disasters: u64) -> Plan {
    let Ok(text) = std::env::var("SOAK") else { return *plan };
    let most = length(&text).unwrap_or_else(|| panic!("SOAK is {text:?}, which is no length of time"));
    soaked(plan, pushes, disasters, most)
}

/// `90s`, `10m`, `4h`.
fn length(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(unit)?))
}

fn soaked(plan: &Plan, pushes: u64, disasters: u64, most: Duration) -> Plan {
    let strikes = if plan.disasters.is_some() { disasters } else { 0 };
    let disasters = plan.disasters.map(|_| Duration::from_secs(6));
    Plan { pushes, strikes, most, disasters, must_get_there: most >= FULL, ..*plan }
}

/// Runs the plan until all of this has happened; nothing may be violated.
async fn holds(plan: &Plan, happens: &'static [&'static str]) {
    let plan = &Plan { happens, ..*plan };
    let world = run(plan).await;
    let violations = world.violations();
    assert!(violations.is_empty(), "{} violations; {}:\n{violations:#?}", violations.len(), world.summary());
    assert!(world.counted("comparisons") > 0, "nothing was compared: {}", world.summary());
    for what in happens {
        assert!(world.counted(what) > 0, "no {what}: {}", world.summary());
    }
    if plan.must_get_there {
        let Plan { pushes, strikes, most, .. } = plan;
        let what = format!("{pushes} pushes and {strikes} disasters in {most:?}");
        assert!(plan.is_reached(&world), "not reached: {what}; {}", world.summary());
    }
}

#[test]
fn a_soak_of_full_length_must_get_to_its_goals_and_a_shorter_one_is_only_bounded() {
    let plan = struck(Kind::Sqlite);
    let soak = |text: &str| soaked(&plan, 50_000, 20, length(text).unwrap());
    let full = soak("4h");
    assert_eq!((full.pushes, full.strikes, full.must_get_there), (50_000, 20, true));
    assert!(!soak("239m").must_get_there && soak("240m").must_get_there && !soak("90s").must_get_there);
    assert_eq!(length("4 hours").or(length("")).or(length("h")), None);
}

const REGISTRY: &[&str] =
    &["pushes", "pulls", "crashes", "passes", "link swept", "blob swept", "promotions", "immutable tags set"];
const DISASTERS: &[&str] =
    &["pushes", "pulls", "crashes", "passes", "failovers", "deep failovers", "losses of all"];
const UPLOADS: &[&str] = &["uploads closed", "crashes", "intrusions", "digests refused"];
const FAILOVERS: &[&str] = &["uploads closed", "crashes", "intrusions", "failovers"];

macro_rules! on_both {
    ($($claim:ident: $plan:expr, $happened:expr;)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::holds(&$plan(super::Kind::Postgres), $happened).await;
            })*
        }

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::holds(&$plan(super::Kind::Sqlite), $happened).await;
            })*
        }
    };
}

on_both! {
    l_78_what_was_pushed_stays_while_all_else_is_collected: super::plain, super::REGISTRY;
    l_08_locks_alone_protect_what_leases_do_not: super::tiny, super::REGISTRY;
    l_78_writers_of_one_upload_never_mix_their_bytes: super::uploaded, super::UPLOADS;
    l_78_uploads_survive_failovers: super::failed_over, super::FAILOVERS;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_55_l_75_l_78_no_disaster_loses_what_was_acknowledged_in_sqlite() {
    holds(&struck(Kind::Sqlite), DISASTERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_55_l_75_l_78_no_disaster_loses_what_was_acknowledged_in_postgres() {
    holds(&struck(Kind::Postgres), DISASTERS).await;
}

fn plain(kind: Kind) -> Plan {
    bounded(&registry(kind, Times::default(), 60), 20_000, 0)
}

fn tiny(kind: Kind) -> Plan {
    bounded(&registry(kind, Times::tiny(), 400), 10_000, 0)
}

fn uploaded(kind: Kind) -> Plan {
    bounded(&uploads(kind), 10_000, 0)
}

fn struck(kind: Kind) -> Plan {
    bounded(&with_disasters(&registry(kind, Times::default(), 60)), 50_000, 20)
}

/// The rows fail over every second, between requests.
fn failed_over(kind: Kind) -> Plan {
    let plan = bounded(&with_disasters(&uploads(kind)), 10_000, 20);
    Plan { disasters: Some(Duration::from_secs(1)), kinds: &[Disaster::Failover], ..plan }
}
