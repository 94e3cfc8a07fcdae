// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A database that fails on demand, at a chosen step: what an outage, a lost answer or a slow peer do to us.
//!
//! Steps are named as the methods of the roles. A step can be refused before it takes effect, lose its answer
//! after it did, or be held before or after until told otherwise, which makes a race a deterministic test. All
//! steps can be cut off at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stowage_oci::{Digest, Name, Reference, Tag};
use uuid::Uuid;

use super::{
    BlobCommit, BlobRow, CancelOutcome, CommitOutcome, DeleteOutcome, Envelope, Epoch, Error, LeaseOutcome,
    Leases, LinkId, ManifestId, ManifestRow, MetaStore, Mount, Multipart, NewUpload, Pin, PinOutcome, Pinned,
    Plan, Progress, Publish, PublishOutcome, Receive, ReferrerRow, Removal, Resolve, UploadKey,
};
use crate::key::Generation;
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

    /// From now on nothing is answered.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    /// From now on everything works again.
    pub fn mend(&self) {
        let mut state = self.state();
        state.cut = false;
        state.faults.clear();
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
        let mut effects = Vec::new();
        for fault in &mut state.faults {
            if fault.strikes(step) {
                effects.push(fault.effect.clone());
            }
        }
        effects
    }

    async fn around<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let effects = self.strike(step);
        for effect in &effects {
            match effect {
                Effect::Fail => return Err(away()),
                Effect::Supersede => return Err(Error::Superseded),
                Effect::HoldBefore(gate) => gate.pass().await,
                Effect::HoldAfter(_) | Effect::LoseAnswer => {}
            }
        }
        let mut outcome = work.await;
        for effect in &effects {
            match effect {
                Effect::HoldAfter(gate) => gate.pass().await,
                Effect::LoseAnswer => outcome = Err(away()),
                Effect::Fail | Effect::Supersede | Effect::HoldBefore(_) => {}
            }
        }
        outcome
    }
}

fn away() -> Error {
    Error::Unavailable(sqlx::Error::PoolTimedOut)
}

/// A database with [`Faults`].
pub struct Faulty {
    inner: Arc<dyn MetaStore>,
    faults: Faults,
}

impl Faulty {
    /// `inner`, and the handle that makes it fail.
    #[must_use]
    pub fn over(inner: Arc<dyn MetaStore>) -> (Self, Faults) {
        let faults = Faults::default();
        (Self { inner, faults: faults.clone() }, faults)
    }
}

/// Each role, each step of it around the same step of the inner store; and the list of all steps.
macro_rules! decorate {
    ($($role:ident { $(fn $step:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* })*) => {
        const STEPS: &[&str] = &[$($(stringify!($step)),*),*];

        $(#[async_trait]
        impl $role for Faulty {
            $(async fn $step(&self, $($argument: $type),*) -> Result<$answer, Error> {
                self.faults.around(stringify!($step), self.inner.$step($($argument),*)).await
            })*
        })*
    };
}

decorate! {
    Resolve {
        fn manifest(repository: &Name, reference: &Reference) -> Option<ManifestRow>;
        fn blob(repository: &Name, digest: &Digest) -> Option<BlobRow>;
        fn renew_link(link: LinkId) -> bool;
        fn renew_manifest(manifest: ManifestId) -> bool;
        fn tags(repository: &Name, after: Option<&str>, limit: u32) -> Option<Vec<Tag>>;
        fn referrers(
            repository: &Name,
            subject: &Digest,
            artifact_types: &[String],
            after: Option<ManifestId>,
            limit: u32
        ) -> Vec<ReferrerRow>;
        fn takes_referrer(repository: &Name, subject: &Digest, limit: u32) -> bool;
        fn repositories(after: Option<&str>, limit: u32) -> Vec<Name>;
        fn repositories_with(digest: &Digest, limit: u32) -> Vec<Name>;
        fn mark_absent(digest: &Digest, generation: Generation) -> ();
    }
    Receive {
        fn open_upload(upload: &NewUpload, expiry: Duration, limit: u32) -> Option<Uuid>;
        fn upload_offset(key: &UploadKey) -> Option<u64>;
        fn lease_upload(key: &UploadKey, token: Uuid) -> LeaseOutcome;
        fn extend_lease(id: Uuid, token: Uuid) -> bool;
        fn release_upload(id: Uuid, token: Uuid) -> ();
        fn restart_upload(id: Uuid, token: Uuid, generation: Generation) -> bool;
        fn record_multipart(id: Uuid, token: Uuid, multipart: &Multipart) -> bool;
        fn store_progress(id: Uuid, token: Uuid, progress: &Progress) -> bool;
        fn record_plan(id: Uuid, token: Uuid, plan: &Plan, progress: &Progress) -> bool;
        fn drop_upload(id: Uuid, token: Uuid) -> bool;
        fn cancel_upload(key: &UploadKey) -> CancelOutcome;
        fn touch_stored(digest: &Digest) -> bool;
        fn commit_blob(epoch: Epoch, commit: &BlobCommit) -> CommitOutcome;
        fn begin_mount(
            epoch: Epoch,
            from: &Name,
            to: &Name,
            digest: &Digest,
            generation: Generation
        ) -> Option<Mount>;
        fn finish_mount(epoch: Epoch, mount: &Mount) -> bool;
    }
    Publish {
        fn pin_manifest(epoch: Epoch, pin: &Pin) -> PinOutcome;
        fn publish_manifest(pinned: &Pinned) -> PublishOutcome;
        fn delete_tag(epoch: Epoch, repository: &Name, tag: &Tag, retain: Duration) -> Option<Removal>;
        fn delete_manifest(
            epoch: Epoch,
            repository: &Name,
            digest: &Digest,
            retain: Duration
        ) -> DeleteOutcome;
        fn delete_blob(epoch: Epoch, repository: &Name, digest: &Digest) -> DeleteOutcome;
        fn finish_removal(removal: &Removal) -> ();
    }
    Leases {
        fn envelope() -> Option<Envelope>;
        fn found(registry: Uuid) -> bool;
        fn claim_epoch(bucket: u32, generation: Generation) -> Option<u32>;
        fn enter_epoch(claim: u32, generation: Generation) -> bool;
        fn finish_walk(epoch: Epoch) -> bool;
        fn destroy(registry: Uuid) -> bool;
        fn ping() -> ();
    }
}
