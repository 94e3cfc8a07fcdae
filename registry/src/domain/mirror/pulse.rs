// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether an upstream could be asked a moment ago.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::memory::Memory;

/// What the last answers and failures of an upstream say about it.
#[derive(Debug)]
pub(super) struct Pulse<E> {
    down: Memory<(), E>,
    /// When it was asked what it answered last.
    answered: ArcSwapOption<Instant>,
}

impl<E: Clone> Pulse<E> {
    pub(super) fn new() -> Self {
        Self { down: Memory::new(), answered: ArcSwapOption::empty() }
    }

    /// It answered what it was asked at `begun`.
    pub(super) fn answered(&self, begun: Instant) {
        if !self.has_answered_since(begun) {
            self.answered.store(Some(Arc::new(begun)));
        }
    }

    /// What it was asked at `begun` came to nothing: it is not asked again for so long, if what is asked can wait. A
    /// request that has waited long says nothing of now, where a later one was answered.
    pub(super) fn silent(&self, begun: Instant, error: &E, lasts: Duration) {
        if !self.has_answered_since(begun) {
            self.down.put((), error.clone(), lasts);
        }
    }

    /// Why it could not be asked a moment ago; `None` if it could, or if that is too long ago.
    pub(super) fn trouble(&self) -> Option<E> {
        self.down.get(&())
    }

    fn has_answered_since(&self, begun: Instant) -> bool {
        self.answered.load().as_ref().is_some_and(|answered| **answered >= begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_mins(1);

    #[test]
    fn an_old_request_that_comes_to_nothing_says_nothing_where_a_later_one_was_answered() {
        let pulse = Pulse::new();
        let first = Instant::now();
        let later = first + Duration::from_secs(1);
        pulse.answered(later);
        pulse.silent(first, &"timeout", LASTS);
        assert_eq!(pulse.trouble(), None);
        pulse.answered(first);
        pulse.silent(later + Duration::from_secs(1), &"timeout", LASTS);
        assert_eq!(pulse.trouble(), Some("timeout"), "nobody was answered since");
    }
}
