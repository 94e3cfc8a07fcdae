// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Crashes: whoever does something does it within [`Tripwire::guard`], and each request it makes to bucket or
//! database may be its last. It ends before the request takes effect or after, and never learns which.

use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stowage_registry::meta::faulty::{Effect, Faults};
use stowage_registry::ops::gate::Gate;

/// Decides at each request whether its maker dies. Clones are the same.
#[derive(Clone)]
pub(super) struct Tripwire(Arc<Mutex<Armed>>);

struct Armed {
    /// Of one request.
    probability: f64,
    random: StdRng,
    /// Where whoever dies now is held until it is dropped.
    grave: Gate,
    /// Somebody is watching: outside of a guarded work nobody dies.
    watched: bool,
    /// Instead of by chance: which request from here on, and where it is held until it may go on.
    hold: Option<(u64, Gate)>,
}

/// At which side of a request.
#[derive(Clone, Debug)]
pub(super) enum Trip {
    Before(Gate),
    After(Gate),
}

impl Tripwire {
    pub(super) fn new(probability: f64, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Armed {
            probability,
            random,
            grave: Gate::new(),
            watched: false,
            hold: None,
        })))
    }

    /// Does `work` to its end, or to a request in its middle: then `None`.
    pub(super) async fn guard<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let grave = Gate::new();
        {
            let mut armed = self.0.lock().unwrap();
            armed.grave = grave.clone();
            armed.watched = true;
        }
        let outcome = tokio::select! {
            done = work => Some(done),
            () = grave.reached() => None,
        };
        self.0.lock().unwrap().watched = false;
        // What it had sent on its way goes on without it.
        grave.release();
        outcome
    }

    /// Nobody dies; the `nth` request from now on, from 1, is held at the gate.
    pub(super) fn hold(&self, nth: u64) -> Gate {
        let gate = Gate::new();
        self.0.lock().unwrap().hold = Some((nth, gate.clone()));
        gate
    }

    pub(super) fn roll(&self) -> Option<Trip> {
        let mut armed = self.0.lock().unwrap();
        if let Some((left, gate)) = &mut armed.hold {
            *left = left.saturating_sub(1);
            return (*left == 0).then(|| Trip::Before(gate.clone()));
        }
        let probability = armed.probability;
        if !armed.watched || !armed.random.random_bool(probability) {
            return None;
        }
        let grave = armed.grave.clone();
        Some(if armed.random.random() { Trip::Before(grave) } else { Trip::After(grave) })
    }

    /// Lets the steps of a database trip it, too.
    pub(super) fn watch(&self, faults: &Faults) {
        let wire = self.clone();
        faults.judge(move |_| match wire.roll() {
            None => Vec::new(),
            Some(Trip::Before(gate)) => vec![Effect::HoldBefore(gate)],
            Some(Trip::After(gate)) => vec![Effect::HoldAfter(gate)],
        });
    }
}
