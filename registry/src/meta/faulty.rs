// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A database that fails on demand, at a chosen step: what an outage, a lost answer or a slow peer do to us.
//!
//! Steps are named as the methods of the roles. A step can be refused before it takes effect, lose its answer
//! after it did, or be held before or after until told otherwise, which makes a race a deterministic test. All
//! steps can be cut off at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layered::{Around, STEPS};
use super::{Error, Layered, MetaStore};
pub use crate::ops::gate::Gate;

/// What happens to a step.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It fails and has no effect.
    Fail,
    /// It takes effect, and the answer is lost.
    LoseAnswer,
    /// The incarnation is another: it fails and has no effect.
    Supersede,
    /// It begins when the gate is released.
    HoldBefore(Gate),
    /// Its answer arrives when the gate is released.
    HoldAfter(Gate),
}

/// Says what happens to a step.
#[derive(Clone)]
struct Judge(Arc<dyn Fn(&'static str) -> Vec<Effect> + Send + Sync>);

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judge")
    }
}

/// When it happens, counted from when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Each time.
    Always,
    /// The n-th time only, from 1.
    Nth(u64),
    /// The first n times.
    First(u64),
}

#[derive(Debug)]
struct Fault {
    step: &'static str,
    occasion: Occasion,
    effect: Effect,
    seen: u64,
}

impl Fault {
    fn strikes(&mut self, step: &str) -> bool {
        if self.step != step {
            return false;
        }
        self.seen += 1;
        match self.occasion {
            Occasion::Always => true,
            Occasion::Nth(n) => self.seen == n,
            Occasion::First(n) => self.seen <= n,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    faults: Vec<Fault>,
    judge: Option<Judge>,
    calls: HashMap<&'static str, u64>,
}

/// Makes a [`Faulty`] fail. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// From now on `effect` happens to `step`, a method's name, on that occasion.
    pub fn inject(&self, step: &'static str, occasion: Occasion, effect: Effect) {
        assert!(STEPS.contains(&step), "there is no step {step}");
        self.state().faults.push(Fault { step, occasion, effect, seen: 0 });
    }

    /// From now on `judge` is asked at each step what happens to it, beside what is injected.
    pub fn judge(&self, judge: impl Fn(&'static str) -> Vec<Effect> + Send + Sync + 'static) {
        self.state().judge = Some(Judge(Arc::new(judge)));
    }

    /// From now on nothing is answered.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    /// From now on everything works again.
    pub fn mend(&self) {
        let mut state = self.state();
        state.cut = false;
        state.faults.clear();
        state.judge = None;
    }

    /// How often `step` was asked for.
    #[must_use]
    pub fn calls(&self, step: &str) -> u64 {
        self.state().calls.get(step).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking test left behind is still a list of faults.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, step: &'static str) -> Vec<Effect> {
        let mut state = self.state();
        *state.calls.entry(step).or_default() += 1;
        if state.cut {
            return vec![Effect::Fail];
        }
        // Every fault counts the call, also those after one that strikes.
        let judge = state.judge.clone();
        let mut effects = judge.map(|Judge(judge)| judge(step)).unwrap_or_default();
        for fault in &mut state.faults {
            if fault.strikes(step) {
                effects.push(fault.effect.clone());
            }
        }
        effects
    }
}

impl Around for Faults {
    async fn around<T: Send>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let effects = self.strike(step);
        for effect in &effects {
            match effect {
                Effect::Fail => return Err(Error::away()),
                Effect::Supersede => return Err(Error::Superseded),
                Effect::HoldBefore(gate) => gate.pass().await,
                Effect::HoldAfter(_) | Effect::LoseAnswer => {}
            }
        }
        let mut outcome = work.await;
        for effect in &effects {
            match effect {
                Effect::HoldAfter(gate) => gate.pass().await,
                Effect::LoseAnswer => outcome = Err(Error::away()),
                Effect::Fail | Effect::Supersede | Effect::HoldBefore(_) => {}
            }
        }
        outcome
    }
}

/// A database with [`Faults`].
pub type Faulty = Layered<Faults>;

impl Faulty {
    /// `inner`, and the handle that makes it fail.
    #[must_use]
    pub fn over(inner: Arc<dyn MetaStore>) -> (Self, Faults) {
        let faults = Faults::default();
        (Self::new(inner, faults.clone()), faults)
    }
}
