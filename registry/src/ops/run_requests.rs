// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs that somebody asks for, of those that this process starts itself.
//!
//! A request is found when it is next looked at what is due. A run that is under way is not the one that was asked for:
//! another follows it. Requests are forgotten when the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What was asked for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RunRequests {
    /// The run of the collectors, of which there is one: [`COLLECTION`](Self::COLLECTION).
    pub collections: Requested,
    /// Runs of mirrors that copy, by their names.
    pub mirrors: Requested,
    /// Runs of retention policies, by their names.
    pub policies: Requested,
}

impl RunRequests {
    /// What a run of the collectors is called.
    pub const COLLECTION: &str = "gc";
}

/// The runs of a kind that are started here, by name, and whether each is asked for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Requested(Arc<Mutex<BTreeMap<String, bool>>>);

impl Requested {
    /// From now on these can be asked for, and no others.
    pub fn offer(&self, names: impl IntoIterator<Item = String>) {
        self.with(|requested| {
            let asked = |name: &String| requested.get(name).copied().unwrap_or_default();
            *requested = names.into_iter().map(|name| (name.clone(), asked(&name))).collect();
        });
    }

    /// Asks for a run; whether it can be asked for here.
    #[must_use]
    pub fn ask(&self, name: &str) -> bool {
        self.with(|requested| requested.get_mut(name).map(|asked| *asked = true)).is_some()
    }

    /// What was asked for since this was last called.
    pub(crate) fn take(&self) -> BTreeSet<String> {
        self.with(|requested| {
            let asked =
                requested.iter_mut().filter_map(|(name, asked)| std::mem::take(asked).then_some(name));
            asked.cloned().collect()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, bool>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_asked_for_and_found_once() {
        let requested = Requested::default();
        assert!(!requested.ask("a"), "nobody would find it");
        requested.offer(["a".to_owned(), "b".to_owned()]);
        assert!(requested.take().is_empty());
        assert!(requested.ask("a") && requested.ask("a") && !requested.ask("c"));
        requested.offer(["a".to_owned(), "c".to_owned()]);
        assert!(requested.ask("c") && !requested.ask("b"));
        assert_eq!(requested.take(), ["a".to_owned(), "c".to_owned()].into());
        assert!(requested.take().is_empty());
    }
}
