// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The clock of a history, and the book that clients write into.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::record::{Action, History, Moment, Operation, Outage, Outcome, Part, Policy, Setback};

/// Takes down what clients do, on one clock.
#[derive(Debug)]
pub struct Recorder {
    beginning: Instant,
    next: AtomicU64,
    history: Mutex<History>,
}

impl Recorder {
    /// The clock starts now.
    #[must_use]
    pub fn start(policy: Policy) -> Self {
        let history = History { policy, ..History::default() };
        Self { beginning: Instant::now(), next: AtomicU64::new(0), history: Mutex::new(history) }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::default().after(self.beginning.elapsed())
    }

    /// An operation begins. If it is dropped before it is over, its client was ended in the middle.
    pub fn begin(&self, client: u32, action: Action) -> Running<'_> {
        let operation = Operation {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            client,
            action,
            invoked: self.now(),
            ended: Moment::default(),
            outcome: Outcome::Crashed,
            setbacks: Vec::new(),
        };
        Running { recorder: self, operation }
    }

    /// Something is about to be done to a part; the number is for [`Recorder::over`].
    pub fn outage(&self, part: Part, reason: impl Into<String>) -> usize {
        let outage = Outage { part, reason: reason.into(), from: self.now(), until: None };
        let mut history = self.lock();
        history.outages.push(outage);
        history.outages.len() - 1
    }

    /// The part of that outage works again.
    pub fn over(&self, outage: usize) {
        let now = self.now();
        if let Some(outage) = self.lock().outages.get_mut(outage) {
            outage.until = Some(now);
        }
    }

    /// What was done to the registry so far.
    #[must_use]
    pub fn outages(&self) -> Vec<Outage> {
        self.lock().outages.clone()
    }

    /// All that was recorded so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    /// Nothing that holds the lock can leave a history half written.
    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation that is not over.
#[derive(Debug)]
pub struct Running<'a> {
    recorder: &'a Recorder,
    operation: Operation,
}

impl Running<'_> {
    /// An attempt came to nothing.
    pub fn setback(&mut self, setback: Setback) {
        self.operation.setbacks.push(setback);
    }

    /// It is over.
    pub fn end(mut self, outcome: Outcome) {
        self.operation.outcome = outcome;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.operation.ended = self.recorder.now();
        self.recorder.lock().operations.push(self.operation.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_whose_client_is_ended_is_recorded_as_crashed() {
        let recorder = Recorder::start(Policy::default());
        let list = || Action::ListTags { repository: "a".to_owned() };
        recorder.begin(1, list()).end(Outcome::Absent);
        drop(recorder.begin(2, list()));
        let outcomes: Vec<_> = recorder.history().operations.into_iter().map(|done| done.outcome).collect();
        assert_eq!(outcomes, [Outcome::Absent, Outcome::Crashed]);
    }

    #[test]
    fn an_outage_lasts_until_it_is_over() {
        let recorder = Recorder::start(Policy::default());
        let number = recorder.outage(Part::Database, "restart");
        assert_eq!(recorder.history().outages[number].until, None);
        recorder.over(number);
        let outage = &recorder.history().outages[number];
        assert!(outage.until.is_some_and(|until| until >= outage.from));
    }
}
