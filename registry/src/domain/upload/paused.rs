// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploads that requests of this replica have left with all of a small blob. The next request mostly closes them and
//! brings no bytes: then nothing is written before the plan, and taking the upload and recording how it is closed is
//! one step.
//!
//! What is remembered is a hint. The database knows whether anybody has taken the upload since; who has not heard of
//! it here takes it as usual.

use quick_cache::sync::Cache;
use stowage_oci::{Digest, Hasher};
use uuid::Uuid;

use super::super::{Domain, Error};
use super::session::Held;
use crate::key::Form;
use crate::meta::{LeasedUpload, Plan, UploadKey};

/// The most uploads that are remembered, of about half a KiB each.
const MOST: usize = 1_000;

/// What is remembered of each upload.
pub(in crate::domain) struct Paused(Cache<Uuid, (UploadKey, LeasedUpload)>);

impl Paused {
    pub(in crate::domain) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    /// Remembers an upload as the request that held it has left it.
    pub(super) fn put(&self, key: &UploadKey, upload: LeasedUpload) {
        if upload.multipart.is_none() && upload.progress.tails.len() == 1 {
            self.0.insert(key.id, (key.clone(), upload));
        }
    }

    /// The upload and how it is closed as `digest`, if that is what it holds. It is forgotten.
    fn take(&self, key: &UploadKey, digest: &Digest) -> Option<(LeasedUpload, Plan)> {
        let (_, (of, upload)) = self.0.remove(&key.id)?;
        let [tail] = upload.progress.tails[..] else { return None };
        let content = Hasher::restore(&upload.progress.hash).ok()?.finish();
        let plan = Plan { digest: *digest, form: Some(Form::Tail(tail.lease)), size: tail.size };
        (of == *key && content == *digest).then_some((upload, plan))
    }
}

impl Domain {
    /// Takes an upload that nobody has had since a request of ours, to be closed as `digest` without another byte.
    pub(super) async fn hold_to_close(
        &self,
        key: &UploadKey,
        digest: &Digest,
    ) -> Result<Option<(Held, Plan)>, Error> {
        let Some((upload, plan)) = self.paused.take(key, digest) else { return Ok(None) };
        let (lease, token) = (upload.lease, Uuid::new_v4());
        let planned = self.write(|_| self.meta.plan_paused(key.id, lease, token, &plan)).await?;
        Ok(planned.then(|| (self.keep(upload, token), plan)))
    }
}
