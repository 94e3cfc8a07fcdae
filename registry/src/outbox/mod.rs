// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Removes objects from the blob store. Nothing else in the process can.
//!
//! Protocol: a queued row names keys that no live row names. The row's steps are carried out in their order,
//! then the row is forgotten.
//! Guarantees: only queued keys go. A crash in between repeats the steps: harmless, keys are never reused.
//! Assumes: no reader keeps a key longer than the tombstone delay.
//! Never: decides what may go, or waits for the store inside a transaction.

mod worker;

use bytes::Bytes;

use crate::blobs::{self, MultipartId, Sweep, Write};

pub use worker::{DrainError, Drained, drain};

/// Why a removal was not carried out. It stays queued and may be carried out again from its beginning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store did not do a step; those after it were not tried.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// A step is none of `+key`, `-key` and `!key id`, or its key is of another layout. Nothing was done.
    #[error("removal step {0:?} is not one that this version knows")]
    UnknownStep(String),
}

/// One step of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Write an empty object: a tombstone, a marker.
    Write(&'a str),
    /// Remove the object.
    Remove(&'a str),
    /// Give up that multipart upload of the object.
    Abort(&'a str, &'a str),
}

impl<'a> Step<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        let written = text.strip_prefix('+').map(Self::Write);
        let step = written.or_else(|| text.strip_prefix('-').map(Self::Remove)).or_else(|| {
            let (key, id) = text.strip_prefix('!')?.split_once(' ')?;
            Some(Self::Abort(key, id))
        });
        step.ok_or_else(|| Error::UnknownStep(text.to_owned()))
    }

    async fn take<S>(self, store: &S) -> Result<(), blobs::Error>
    where
        S: Write + Sweep + ?Sized,
    {
        match self {
            Self::Write(key) => store.put(key, vec![Bytes::new()]).await,
            Self::Remove(key) => store.delete(&[key.to_owned()]).await,
            Self::Abort(key, id) => store.abort(key, &MultipartId(id.to_owned())).await,
        }
    }
}

/// Carries out the steps of a removal, each after the one before it is known to have taken effect: evidence
/// first, data last.
pub async fn carry_out<S>(store: &S, steps: &[String]) -> Result<(), Error>
where
    S: Write + Sweep + ?Sized,
{
    let steps: Vec<_> = steps.iter().map(|step| Step::parse(step)).collect::<Result<_, _>>()?;
    for step in steps {
        step.take(store).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::blobs::{Effect, Failure, Fault, Faulty, Memory, Occasion, Read, Request};

    fn steps(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[tokio::test]
    async fn the_marker_is_there_before_the_record_goes() {
        let (store, faults) = Faulty::over(Arc::new(Memory::new()));
        store.put("record", vec![]).await.unwrap();
        let steps = steps(&["+record.x", "-record"]);

        let refusal = Fault::at(Request::Put, Effect::Fail(Failure::Unavailable));
        faults.add(refusal.on(Occasion::First(1)));
        carry_out(&store, &steps).await.unwrap_err();
        assert_eq!(store.head("record").await.unwrap(), Some(0));

        carry_out(&store, &steps).await.unwrap();
        assert_eq!(store.head("record").await.unwrap(), None);
        assert_eq!(store.head("record.x").await.unwrap(), Some(0));
    }

    #[tokio::test]
    async fn a_removal_can_be_repeated() {
        let store = Memory::new();
        let steps = steps(&["+tombstone", "-pointer", "-data"]);
        carry_out(&store, &steps).await.unwrap();
        carry_out(&store, &steps).await.unwrap();
    }

    #[tokio::test]
    async fn a_step_of_another_version_stops_the_removal_before_it_begins() {
        let store = Memory::new();
        store.put("record", vec![]).await.unwrap();
        let failed = carry_out(&store, &steps(&["-record", "=record"])).await;
        assert!(matches!(failed, Err(Error::UnknownStep(step)) if step == "=record"));
        assert_eq!(store.head("record").await.unwrap(), Some(0));
    }
}
