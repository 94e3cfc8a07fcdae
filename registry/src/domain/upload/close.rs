// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Closing an upload: check the digest, record how it is closed, then do it.

use bytes::Bytes;
use futures::TryStreamExt as _;
use stowage_oci::{Algorithm, Digest, Hasher, Name};

use super::super::reconcile::Unit;
use super::super::{Domain, Error};
use super::Chunk;
use super::receive::Receiver;
use super::session::Held;
use crate::blobs::{self, MultipartId, Part};
use crate::key::{Form, Key};
use crate::meta::{BlobCommit, CommitOutcome, Location, Plan, Progress, UploadKey};

impl Domain {
    /// Stores a blob that comes in one request.
    pub async fn push_blob(
        &self,
        repository: &Name,
        principal: &str,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<(), Error> {
        let key = self.begin(repository, principal, digest).await?;
        self.close(&key, digest, chunk).await
    }

    /// Opens an upload of a blob whose digest is known.
    async fn begin(&self, repository: &Name, principal: &str, digest: &Digest) -> Result<UploadKey, Error> {
        let id = self.open_upload(repository, principal, digest.algorithm()).await?;
        Ok(UploadKey { id, repository: repository.clone(), principal: principal.to_owned() })
    }

    /// Stores a blob that comes from elsewhere, as `principal`. What does not become a blob leaves nothing.
    pub(in crate::domain) async fn keep_blob(
        &self,
        repository: &Name,
        principal: &str,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<(), Error> {
        let key = self.begin(repository, principal, digest).await?;
        let outcome = self.close(&key, digest, chunk).await;
        if outcome.is_err()
            && let Err(error) = self.cancel(&key).await
        {
            tracing::debug!(upload.id = %key.id, %error, "an upload was not cancelled; it expires");
        }
        outcome
    }

    /// Adds a last chunk, which may be empty or everything, and makes the upload a blob.
    pub async fn close(&self, key: &UploadKey, digest: &Digest, chunk: Chunk) -> Result<(), Error> {
        let _slot = self.running_uploads.try_one().ok_or(Error::TooManyUploads)?;
        let empty = chunk.length == Some(0);
        if empty && let Some((held, plan)) = self.hold_to_close(key, digest).await? {
            return self.resume_close(key, held, plan).await;
        }
        let held = match self.hold(key).await {
            // Perhaps our answer to the first attempt was lost.
            Err(Error::UploadUnknown) => return self.closed_before(key, digest).await,
            held => held?,
        };
        let offset = held.upload.progress.offset;
        match held.upload.plan {
            Some(plan) if plan.digest == *digest && empty => return self.resume_close(key, held, plan).await,
            None if empty || chunk.start.is_none_or(|start| start == offset) => {}
            _ => {
                self.let_go(&held).await;
                return Err(Error::NotAtOffset { offset });
            }
        }
        let mut receiver = Receiver::begin(self.clone(), held, digest.algorithm(), chunk.length).await?;
        // Content that is stored already is received and hashed all the same, but not stored again.
        let unit = [Unit::Blob(*digest)];
        receiver.stores =
            offset > 0 || empty || !self.write_to(&unit, |_| self.meta.touch_stored(digest)).await?;
        match receiver.receive(chunk).await {
            Ok(()) => receiver.close(key, digest).await,
            Err(error) => Err(receiver.fail(error).await),
        }
    }

    /// A close that is repeated when it is done.
    async fn closed_before(&self, key: &UploadKey, digest: &Digest) -> Result<(), Error> {
        match self.blob(&key.repository, digest, true).await {
            Ok(_) => Ok(()),
            Err(Error::BlobUnknown) => Err(Error::UploadUnknown),
            Err(error) => Err(error),
        }
    }

    /// Carries out a plan that another request recorded and did not finish.
    async fn resume_close(&self, key: &UploadKey, held: Held, plan: Plan) -> Result<(), Error> {
        let Some(form) = plan.form else { return self.commit(key, &held, plan.digest, None, None).await };
        let location = Location { generation: held.upload.generation, form, size: plan.size };
        match form {
            Form::Upload => self.complete(&held, &held.upload.progress.parts, plan.size).await?,
            Form::Tail(_) => {}
            Form::Inline => {
                let data = location.data_key(plan.digest).to_string();
                if self.store.head(&data).await? != Some(plan.size) {
                    // The bytes were only in the memory of the process that is gone.
                    let (id, token) = (held.upload.id, held.token);
                    self.write(|_| self.meta.drop_upload(id, token)).await?;
                    return Err(Error::UploadUnknown);
                }
            }
        }
        self.verify(&held, held.upload.algorithm, plan.digest, &location).await?;
        self.commit(key, &held, plan.digest, Some(location), None).await
    }

    /// Makes the object of the recorded parts.
    async fn complete(&self, held: &Held, parts: &[Part], size: u64) -> Result<(), Error> {
        let multipart = held.upload.multipart.as_ref().ok_or(Error::UploadUnknown)?;
        let key = Key::Upload { generation: held.upload.generation }.to_string();
        let Err(error) = self.store.complete(&key, &MultipartId(multipart.id.clone()), parts).await else {
            return Ok(());
        };
        // Whatever the answer was: only the plan's content can be there.
        if self.store.head(&key).await? == Some(size) { Ok(()) } else { Err(error.into()) }
    }

    /// Reads content back and hashes it, if that was not done while it came or the store may have mixed up its
    /// parts. `hashed` is the algorithm it was hashed with.
    async fn verify(
        &self,
        held: &Held,
        hashed: Algorithm,
        digest: Digest,
        location: &Location,
    ) -> Result<(), Error> {
        let uncertain = location.form == Form::Upload && self.reads_back;
        if location.form == Form::Inline || (hashed == digest.algorithm() && !uncertain) {
            return Ok(());
        }
        let key = location.data_key(digest).to_string();
        let content = self.store.get(&key, None).await?.ok_or(Error::UploadUnknown)?;
        let hash = async |mut hasher: Hasher, bytes: Bytes| -> Result<Hasher, blobs::Error> {
            hasher.update(&bytes);
            Ok(hasher)
        };
        let actual = content.stream.try_fold(Hasher::new(digest.algorithm()), hash).await?.finish();
        if actual == digest {
            return Ok(());
        }
        self.refuse(held, actual).await
    }

    /// Ends an upload whose content is not what was claimed.
    async fn refuse(&self, held: &Held, actual: Digest) -> Result<(), Error> {
        let (id, token) = (held.upload.id, held.token);
        self.write(|_| self.meta.drop_upload(id, token)).await?;
        Err(Error::DigestMismatch { actual })
    }

    /// Writes link record and data or pointer, then publishes the blob. `location` is `None` when the content was
    /// stored already; `data` is what has not been written yet.
    async fn commit(
        &self,
        key: &UploadKey,
        held: &Held,
        digest: Digest,
        location: Option<Location>,
        data: Option<Vec<Bytes>>,
    ) -> Result<(), Error> {
        let generation = held.upload.generation;
        let link = Key::Link { repository: key.repository.clone(), digest, generation }.to_string();
        let write_blob = async {
            match location {
                Some(location) if data.is_some() || location.form != Form::Inline => {
                    self.store.put(&location.blob_key(digest).to_string(), data.unwrap_or_default()).await
                }
                _ => Ok(()),
            }
        };
        futures::try_join!(self.store.put(&link, Vec::new()), write_blob)?;
        let commit =
            BlobCommit { upload: held.upload.id, token: held.token, digest, location, link: generation };
        let unit = [Unit::Link(key.repository.clone(), digest)];
        match self.write_to(&unit, |epoch| self.meta.commit_blob(epoch, &commit)).await? {
            CommitOutcome::Committed => Ok(()),
            CommitOutcome::UploadGone => self.closed_before(key, &digest).await,
            CommitOutcome::DataGone => Err(Error::Overtaken),
        }
    }
}

impl Receiver {
    /// Closes the upload with everything received.
    async fn close(mut self, key: &UploadKey, digest: &Digest) -> Result<(), Error> {
        match self.check_digest(digest) {
            Ok(()) if !self.stores => {
                self.plan(*digest, None).await?;
                self.domain.commit(key, &self.held, *digest, None, None).await
            }
            Ok(()) if self.is_small() => self.close_small(key, *digest).await,
            Ok(()) => self.close_multipart(key, *digest).await,
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    /// Content hashed with another algorithm is checked once it can be read back.
    fn check_digest(&self, claimed: &Digest) -> Result<(), Error> {
        if self.hasher.algorithm() != claimed.algorithm() {
            return Ok(());
        }
        let actual = self.hasher.clone().finish();
        if actual == *claimed { Ok(()) } else { Err(Error::DigestMismatch { actual }) }
    }

    async fn close_small(&mut self, key: &UploadKey, digest: Digest) -> Result<(), Error> {
        if let [tail] = self.durable.tails[..]
            && self.segments.is_empty()
        {
            return self.close_as_planned(key, digest, Form::Tail(tail.lease), None).await;
        }
        let mut segments = self.staged_bytes().await?;
        segments.append(&mut self.segments);
        if self.hasher.algorithm() != digest.algorithm() {
            let actual = hash(digest.algorithm(), &segments);
            if actual != digest {
                return self.domain.refuse(&self.held, actual).await;
            }
        }
        self.close_as_planned(key, digest, Form::Inline, Some(segments)).await
    }

    async fn close_multipart(&mut self, key: &UploadKey, digest: Digest) -> Result<(), Error> {
        self.finish_parts().await?;
        self.close_as_planned(key, digest, Form::Upload, None).await
    }

    async fn close_as_planned(
        &mut self,
        key: &UploadKey,
        digest: Digest,
        form: Form,
        data: Option<Vec<Bytes>>,
    ) -> Result<(), Error> {
        self.plan(digest, Some(form)).await?;
        let domain = &self.domain;
        if form == Form::Upload {
            domain.complete(&self.held, &self.durable.parts, self.offset).await?;
        }
        let location = Location { generation: self.held.upload.generation, form, size: self.offset };
        domain.verify(&self.held, self.hasher.algorithm(), digest, &location).await?;
        domain.commit(key, &self.held, digest, Some(location), data).await
    }

    /// Records how the upload is closed: from here on a row names every key that closing it writes.
    async fn plan(&self, digest: Digest, form: Option<Form>) -> Result<(), Error> {
        let plan = Plan { digest, form, size: self.offset };
        let progress = Progress { offset: self.offset, hash: self.hasher.save(), ..self.durable.clone() };
        let (id, token, meta) = (self.held.upload.id, self.held.token, &self.domain.meta);
        if self.domain.write(|_| meta.record_plan(id, token, &plan, &progress)).await? {
            Ok(())
        } else {
            Err(Error::Overtaken)
        }
    }
}

fn hash(algorithm: Algorithm, segments: &[Bytes]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    for segment in segments {
        hasher.update(segment);
    }
    hasher.finish()
}
