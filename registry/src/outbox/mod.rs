// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Removes objects from the bucket. Nothing else in the process can.
//!
//! Protocol: a queued row names steps, in order: `+key` writes an empty object (a tombstone or a marker),
//! `-key` removes one. They are carried out, then the row is forgotten.
//! Guarantees: only queued keys go. A crash in between repeats the steps: harmless, as keys are never reused.
//! Never: decides what may go.

use crate::blobs::{Error, Store};
use crate::meta::Removal;

/// Carries the steps of `removal` out, in order. May be repeated.
pub(crate) async fn carry_out(store: &dyn Store, removal: &Removal) -> Result<(), Error> {
    for step in &removal.steps {
        if let Some(key) = step.strip_prefix('+') {
            store.put(key, Vec::new()).await?;
        } else if let Some(key) = step.strip_prefix('-') {
            store.delete(&[key.to_owned()]).await?;
        }
    }
    Ok(())
}
