// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Opening, asking, cancelling; and the lease that a request holds while it works on an upload.

use std::sync::Arc;
use std::time::Duration;

use stowage_oci::{Algorithm, Name};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::super::{Domain, Error};
use crate::blobs::MultipartId;
use crate::key::{Generation, Key};
use crate::meta::{CancelOutcome, LeaseOutcome, LeasedUpload, Multipart, NewUpload, UploadKey};
use crate::ops::clock;

/// How long a request waits for another that holds the upload.
const PATIENCE: Duration = Duration::from_secs(5);

/// An upload that this request holds.
pub(super) struct Held {
    pub(super) upload: LeasedUpload,
    pub(super) token: Uuid,
    /// Cancelled when the lease is lost.
    pub(super) lost: CancellationToken,
    _keeper: DropGuard,
}

impl Domain {
    /// Begins an upload.
    pub async fn open_upload(
        &self,
        repository: &Name,
        principal: &str,
        algorithm: Algorithm,
    ) -> Result<Uuid, Error> {
        let upload = NewUpload {
            repository: repository.clone(),
            principal: principal.to_owned(),
            algorithm,
            generation: Generation::at(clock::milliseconds()),
        };
        let limits = self.limits.load_full();
        let (expiry, most) = (limits.upload_expiry, limits.max_open_uploads);
        let opened = self.write(|_| self.meta.open_upload(&upload, expiry, most)).await?;
        opened.ok_or(Error::TooManyUploads)
    }

    /// How many bytes of the upload are durable.
    pub async fn upload_offset(&self, key: &UploadKey) -> Result<u64, Error> {
        self.meta.upload_offset(key).await?.ok_or(Error::UploadUnknown)
    }

    /// Gives an upload up.
    pub async fn cancel(&self, key: &UploadKey) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.write(|_| self.meta.cancel_upload(key)).await? {
                CancelOutcome::Cancelled => return Ok(()),
                CancelOutcome::Busy if Instant::now() < deadline => pause().await,
                CancelOutcome::Busy => {
                    return Err(Error::NotAtOffset { offset: self.upload_offset(key).await? });
                }
                CancelOutcome::Unknown => return Err(Error::UploadUnknown),
            }
        }
    }

    /// Takes the upload for this request; waits a little for another one.
    pub(super) async fn hold(&self, key: &UploadKey) -> Result<Held, Error> {
        let deadline = Instant::now() + PATIENCE;
        let token = Uuid::new_v4();
        loop {
            match self.write(|_| self.meta.lease_upload(key, token)).await? {
                LeaseOutcome::Leased(upload) => return Ok(self.keep(*upload, token)),
                LeaseOutcome::Busy { .. } if Instant::now() < deadline => pause().await,
                LeaseOutcome::Busy { offset } => return Err(Error::NotAtOffset { offset }),
                LeaseOutcome::Unknown => return Err(Error::UploadUnknown),
            }
        }
    }

    /// Extends the lease until the request is done with it.
    pub(super) fn keep(&self, upload: LeasedUpload, token: Uuid) -> Held {
        const RENEWAL: Duration = Duration::from_secs(20);
        let (done, lost) = (CancellationToken::new(), CancellationToken::new());
        let (meta, id, ended, gone) = (Arc::clone(&self.meta), upload.id, done.clone(), lost.clone());
        self.tasks.spawn(async move {
            while ended.run_until_cancelled(tokio::time::sleep(RENEWAL)).await.is_some() {
                // A database that is away tells nothing: the token decides when it is back.
                if matches!(meta.extend_lease(id, token).await, Ok(false)) {
                    return gone.cancel();
                }
            }
        });
        Held { upload, token, lost, _keeper: done.drop_guard() }
    }

    /// Lets go of an upload that has not changed. Failing that, its lease runs out.
    pub(super) async fn let_go(&self, held: &Held) {
        if let Err(error) = self.meta.release_upload(held.upload.id, held.token).await {
            tracing::debug!(upload.id = %held.upload.id, %error, "lease not released");
        }
    }

    /// Aborts a multipart upload that no row names. What this misses only the store's own expiry removes.
    pub(super) async fn abort(&self, generation: Generation, multipart: Multipart) {
        let key = Key::Upload { generation }.to_string();
        if let Err(error) = self.store.abort(&key, &MultipartId(multipart.id)).await {
            tracing::warn!(object.key = key, %error, "multipart upload not aborted");
        }
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
