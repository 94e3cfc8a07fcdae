// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A run from its beginning to its end: who takes part, when it is looked at, when disasters strike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::clients::{self, Shelf};
use super::database::Disaster;
use super::uploads::{self, Sessions};
use super::workers;
use super::world::{STRICTS, Setting, World};
use super::{check, reader};

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Push, tag, delete and pull images of so many blobs.
    Registry { blobs: u32 },
    /// Upload.
    Uploads,
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) setting: Setting,
    pub(super) part: Part,
    /// It ends after this time and so many pushes (or closed uploads) and disasters; at the latest after `most`.
    pub(super) least: Duration,
    pub(super) pushes: u64,
    pub(super) strikes: u64,
    /// What must have happened, too, whatever the machine is busy with.
    pub(super) happens: &'static [&'static str],
    pub(super) most: Duration,
    /// To end before so many pushes and disasters is a failure.
    pub(super) must_get_there: bool,
    /// From one disaster to the next; none without it.
    pub(super) disasters: Option<Duration>,
    pub(super) kinds: &'static [Disaster],
    /// Stop at the first violation that says one of these: for runs that must have one.
    pub(super) until: &'static [&'static str],
}

const CLIENTS: usize = 8;
const COLLECTORS: usize = 2;
const WALKERS: usize = 2;
/// From one look at everything to the next.
const LOOK: Duration = Duration::from_secs(4);
/// From one snapshot of the database to the next.
const KEEP: Duration = Duration::from_millis(400);

impl Plan {
    /// Whether what must go wrong has.
    pub(super) fn is_found(&self, world: &World) -> bool {
        let says = |what: &String| self.until.iter().any(|words| what.contains(words));
        !self.until.is_empty() && world.violations().iter().any(says)
    }

    fn is_over(&self, world: &World, began: Instant) -> bool {
        if self.is_found(world) {
            return true;
        }
        began.elapsed() >= self.least && self.is_reached(world) || began.elapsed() >= self.most
    }

    /// Whether there were so many pushes and disasters, and all else that must happen.
    pub(super) fn is_reached(&self, world: &World) -> bool {
        let done = world.counted("pushes").max(world.counted("uploads closed"));
        done >= self.pushes
            && world.counted("disasters") >= self.strikes
            && self.happens.iter().all(|what| world.counted(what) > 0)
    }
}

/// Runs `plan`; what was found is in the world.
pub(super) async fn run(plan: &Plan) -> Arc<World> {
    let world = World::new(&plan.setting).await;
    println!("{:?}, seed {}: begins", plan.setting.kind, plan.setting.seed);
    let sessions = Sessions::new();
    let mut all = JoinSet::new();
    take_part(&world, plan, &sessions, &mut all);
    if plan.disasters.is_some() {
        all.spawn(keep(Arc::clone(&world)));
    }
    conduct(plan, &world).await;
    world.stop.cancel();
    while let Some(ended) = all.join_next().await {
        ended.expect("nobody panics");
    }
    if plan.is_found(&world) {
        println!("{}", world.summary());
        return world;
    }
    look(&world).await;
    match plan.part {
        // What is broken on purpose need not come to a good end.
        _ if !plan.until.is_empty() => {}
        Part::Registry { .. } => workers::everything_goes(&world).await,
        Part::Uploads => sessions.verify(&world).await,
    }
    println!("{}", world.summary());
    world
}

fn take_part(world: &Arc<World>, plan: &Plan, sessions: &Arc<Sessions>, all: &mut JoinSet<()>) {
    let crashes = plan.setting.crashes;
    let shelf = match plan.part {
        Part::Registry { blobs } => Shelf::new(blobs),
        Part::Uploads => Shelf::new(1),
    };
    let part = plan.part;
    for number in 0..CLIENTS {
        let (shared, shelf, sessions) = (Arc::clone(world), Arc::clone(&shelf), Arc::clone(sessions));
        all.spawn(Arc::clone(world).take_part(number, crashes, move |actor| {
            let (world, shelf, sessions) = (Arc::clone(&shared), Arc::clone(&shelf), Arc::clone(&sessions));
            Box::pin(async move {
                match part {
                    Part::Registry { .. } => clients::step(&world, &shelf, actor).await,
                    Part::Uploads => uploads::step(&world, &sessions, actor).await,
                }
            })
        }));
    }
    for number in CLIENTS..CLIENTS + COLLECTORS {
        let shared = Arc::clone(world);
        all.spawn(Arc::clone(world).take_part(number, crashes, move |actor| {
            let world = Arc::clone(&shared);
            Box::pin(async move { workers::collect(&world, actor).await })
        }));
    }
    for number in CLIENTS + COLLECTORS..CLIENTS + COLLECTORS + WALKERS {
        let shared = Arc::clone(world);
        all.spawn(Arc::clone(world).take_part(number, crashes, move |actor| {
            let world = Arc::clone(&shared);
            Box::pin(async move { workers::walk(&world, actor).await })
        }));
    }
    let shared = Arc::clone(world);
    all.spawn(Arc::clone(world).take_part(CLIENTS + COLLECTORS + WALKERS, crashes, move |actor| {
        let world = Arc::clone(&shared);
        Box::pin(async move { workers::verify(&world, actor).await })
    }));
}

/// Remembers states of the database, for disasters to go back to.
async fn keep(world: Arc<World>) {
    while !world.stop.is_cancelled() {
        world.database.keep().await;
        tokio::select! {
            () = tokio::time::sleep(KEEP) => {}
            () = world.stop.cancelled() => {}
        }
    }
}

async fn conduct(plan: &Plan, world: &Arc<World>) {
    let mut random = StdRng::seed_from_u64(plan.setting.seed ^ 0xd15a);
    let began = Instant::now();
    let (mut looked, mut struck) = (began, began);
    while !plan.is_over(world, began) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(pause) = plan.disasters
            && struck.elapsed() >= pause
        {
            // Not always at the same moment of what it interrupts.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            let number = usize::try_from(world.counted("disasters")).expect("few");
            let kind = plan.kinds[number % plan.kinds.len()];
            world.count("disasters");
            if plan.part == Part::Uploads {
                // Between requests.
                let _rest = world.at_rest().await;
                world.strike(kind).await;
            } else {
                world.strike(kind).await;
            }
            struck = Instant::now();
        }
        if looked.elapsed() >= LOOK {
            look(world).await;
            looked = Instant::now();
        }
    }
}

/// Compares bucket and database while nobody is at work.
async fn look(world: &World) {
    let _rest = world.at_rest().await;
    workers::settle(world).await;
    world.count("comparisons");
    let rows = world.database.rows().await;
    let contents = world.bucket.contents().await;
    let read = reader::read(&contents);
    let mut found = check::differences(&rows, &read, &STRICTS);
    let is_forgiven = |key: &str| world.setting.loses_rows || world.bucket.is_revived(key);
    found.extend(check::ledger(&rows, &read, &world.promised.all(), is_forgiven));
    for difference in &found {
        let evidence = check::evidence(difference, &contents, &rows, |key| world.bucket.is_revived(key));
        world.violation(format!("comparison: {difference}; {evidence}"));
    }
}
