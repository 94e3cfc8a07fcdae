// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is remembered for a while: that something was not there, or was wrong.
//!
//! Guarantees: nothing is remembered for longer than it was to be, and not more than so much.

use std::hash::Hash;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

/// The most things that are remembered.
const MOST: usize = 10_000;

/// What is remembered of each of these.
#[derive(Debug)]
pub(super) struct Memory<K, V>(Cache<K, (Instant, V)>);

impl<K: Eq + Hash + Clone, V: Clone> Memory<K, V> {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let (until, value) = self.0.get(key)?;
        if Instant::now() < until {
            return Some(value);
        }
        self.0.remove(key);
        None
    }

    pub(super) fn put(&self, key: K, value: V, lasts: Duration) {
        if !lasts.is_zero() {
            self.0.insert(key, (Instant::now() + lasts, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_not_remembered() {
        let memory = Memory::new();
        memory.put("a", 1, Duration::from_mins(1));
        memory.put("b", 2, Duration::ZERO);
        memory.put("c", 3, Duration::from_nanos(1));
        assert_eq!((memory.get(&"a"), memory.get(&"b")), (Some(1), None));
        while memory.get(&"c").is_some() {}
    }
}
