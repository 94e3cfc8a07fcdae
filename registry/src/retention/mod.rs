// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which tags stay, and why: the rules of policies, and what they say of the tags of a repository.
//!
//! Flow: the policies that match a repository are chosen ([`Policies::of`]); each of its tags gets a [`Verdict`]
//! ([`Plan::judge`]); what would go is asked for last, whether something runs it; the numbers of all
//! repositories open or close the breaker ([`Limits::allow`]).
//! Guarantees: a tag is judged by itself, never by its digest; a rule of any policy that matches keeps it, whatever
//! the mode of that policy; what is not known keeps.
//! Never: reads or writes anything. Values come in, `now` among them.

mod breaker;
mod judge;
mod policy;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use breaker::{Involved, Limits, Tally, TooMany};
pub use judge::{Facts, Guard, Plan, Promotion, Verdict, subject_of};
pub use policy::{By, Immutable, MostRecent, Policies, Policy, PolicyMode, Promoted, Referrers, Rule};
