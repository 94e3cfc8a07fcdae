// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether what clients of a registry saw is what it promises.
//!
//! Clients [record](Recorder) every operation with the instants of its invocation and its end, on one clock, and what
//! came of it. Afterwards [`check()`] decides by that alone, without a look at the registry, and names the operations
//! that contradict each other. A history is a file of JSON lines, so that it can be judged again.
//! Guarantees: the verdict depends on the history alone, and is exact for tags and manifests: each is a register that
//! must be linearizable, operations of unknown fate included. What is too tangled to be decided is reported, never
//! passed over.
//! Never: forgives because something was busy, slow or unlucky. Excuses are values: [`Policy`] and [`Outage`].

mod availability;
mod blobs;
mod check;
mod explain;
mod index;
mod linearizable;
mod mirror;
mod record;
mod recorder;
#[cfg(test)]
mod simulated;

pub use check::{Rule, Verdict, Violation, check, survivors};
pub use record::{
    Action, Cause, Fate, History, Mirror, Moment, Operation, Outage, Outcome, Part, Policy, ReadError,
    Reference, Setback,
};
pub use recorder::{Recorder, Running};
