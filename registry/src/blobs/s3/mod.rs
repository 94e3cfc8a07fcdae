// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The bucket of an S3 service or of one that speaks like it.
//!
//! Only what all of them do is used: no conditional request, no copy, no metadata, no checksum trailer. A checksum in a
//! header only where the service was seen to look at it.
//! Content goes out in the segments it came in and comes back as it arrives; nothing is kept between.
//! Every request is retried a few times, but the one that begins a multipart upload.

mod body;
mod checksums;
mod client;
mod delete;
mod error;
mod lifecycle;
mod multiparts;
mod read;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use self::body::Seal;
pub use self::client::{Credentials, Settings, SettingsError};
use self::client::{attempt, once};
use self::error::classify;
use super::{
    Content, Error, MultipartId, Object, OpenMultipart, Part, Presign, Read, Request, Store, Sweep, Write,
    total,
};
use crate::ops::clock;

/// How long a request may take each time it is tried, beside the time for its content. To a host that has vanished
/// nothing else ends it.
const CONTROL: Duration = Duration::from_secs(10);
/// How long each MiB of content may take.
const TRANSFER: Duration = Duration::from_millis(1500);
/// What a service puts on one page of a listing at most.
const PAGE: usize = 1000;
/// For how long a presigned URL stays the same.
const SIGNED_ALIKE: Duration = Duration::from_mins(5);
/// For how long a presigned URL can be used at least.
const SIGNED_FOR: Duration = Duration::from_mins(15);

/// Objects in a bucket. Clones share connections.
#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    bucket: Arc<str>,
    /// Empty, or ends in `/`.
    prefix: Arc<str>,
    /// Whether the connection protects content, so that nothing else need.
    encrypted: bool,
    /// Whether the service was seen to refuse content that does not fit its checksum.
    checks: Arc<AtomicBool>,
    /// Whether the service has refused to delete several objects at once.
    one_by_one: Arc<AtomicBool>,
}

impl S3 {
    /// Prepares the use of a bucket. Asks nothing of the service yet.
    pub async fn new(settings: Settings) -> Result<Self, SettingsError> {
        let prefix = settings.key_prefix();
        Ok(Self {
            client: client::connect(&settings).await?,
            bucket: settings.bucket.into(),
            prefix: prefix.into(),
            encrypted: !settings.endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")),
            checks: Arc::default(),
            one_by_one: Arc::default(),
        })
    }

    /// The name of a rule by which the service removes our objects when they become old, if its rules can be
    /// read and there is one. It destroys content that is in use.
    pub async fn expiry_rule(&self) -> Result<Option<String>, Error> {
        lifecycle::expiry_rule(self).await
    }

    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// What protects this content on its way to the service.
    async fn seal(&self, segments: &[Bytes]) -> Seal {
        if self.encrypted {
            Seal::Connection
        } else if self.checks.load(Ordering::Relaxed) {
            Seal::checksum(segments)
        } else {
            Seal::signature(segments).await
        }
    }

    async fn put_sealed(&self, key: &str, segments: Vec<Bytes>, seal: Seal) -> Result<(), Error> {
        let size = total(&segments);
        let request = self.client.put_object().bucket(&*self.bucket).key(self.full_key(key));
        let request = request.content_length(length(size)).body(body::of(segments)).customize();
        let answer = request.interceptor(seal).config_override(attempt(transfer(size))).send().await;
        answer.map_err(|error| classify(Request::Put, key, error))?;
        Ok(())
    }

    async fn part_sealed(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        segments: Vec<Bytes>,
        seal: Seal,
    ) -> Result<Part, Error> {
        let size = total(&segments);
        let request = self.client.upload_part().bucket(&*self.bucket).key(self.full_key(key));
        let request = request.upload_id(&id.0).part_number(i32::from(number));
        let request = request.content_length(length(size)).body(body::of(segments)).customize();
        let answer = request.interceptor(seal).config_override(attempt(transfer(size))).send().await;
        let answer = answer.map_err(|error| classify(Request::UploadPart, key, error))?;
        let etag = answer.e_tag.ok_or_else(|| Request::UploadPart.refused(key, "the answer has no ETag"))?;
        Ok(Part { number, size, etag })
    }

    /// One page of a listing, and whether there are more.
    async fn page(&self, prefix: &str, after: &str, limit: usize) -> Result<(Vec<Object>, bool), Error> {
        let limit = limit.min(PAGE);
        let request = self.client.list_objects_v2().bucket(&*self.bucket).prefix(self.full_key(prefix));
        let request = match after {
            "" => request,
            after => request.start_after(self.full_key(after)),
        };
        let request = request.max_keys(i32::try_from(limit).expect("a page fits"));
        let answer = request.customize().config_override(attempt(CONTROL)).send().await;
        let answer = answer.map_err(|error| classify(Request::List, prefix, error))?;
        let more = answer.is_truncated().unwrap_or_default();
        let objects = answer.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let key = object.key?.strip_prefix(&*self.prefix)?.to_owned();
            Some(Object { key, size: object.size.and_then(|size| size.try_into().ok()).unwrap_or_default() })
        });
        Ok((objects.collect(), more))
    }
}

/// As the library takes the length of content.
fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// How long a request may take that carries `bytes`.
fn transfer(bytes: u64) -> Duration {
    CONTROL + TRANSFER * u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

#[async_trait]
impl Read for S3 {
    async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        let request = self.client.head_object().bucket(&*self.bucket).key(self.full_key(key));
        match request.customize().config_override(attempt(CONTROL)).send().await {
            Ok(answer) => {
                let length = answer.content_length().and_then(|length| length.try_into().ok());
                length.map(Some).ok_or_else(|| Request::Head.refused(key, "the answer has no length"))
            }
            Err(error) if error::is_missing(&error) => Ok(None),
            Err(error) => Err(classify(Request::Head, key, error)),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error> {
        match range {
            // HTTP has no range of nothing.
            Some(range) if range.is_empty() => match self.head(key).await? {
                Some(size) => read::nothing(key, size, range).map(Some),
                None => Ok(None),
            },
            range => read::open(self, key, range).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error> {
        let mut found: Vec<Object> = Vec::new();
        while found.len() < limit {
            let after = found.last().map(|object| object.key.as_str()).or(after).unwrap_or_default();
            let (objects, more) = self.page(prefix, after, limit - found.len()).await?;
            let ended = !more || objects.is_empty();
            found.extend(objects);
            if ended {
                break;
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Write for S3 {
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error> {
        let seal = self.seal(&segments).await;
        self.put_sealed(key, segments, seal).await
    }

    async fn create_multipart(&self, key: &str) -> Result<MultipartId, Error> {
        let request = self.client.create_multipart_upload().bucket(&*self.bucket).key(self.full_key(key));
        let answer = request.customize().config_override(once(CONTROL)).send().await;
        let answer = answer.map_err(|error| classify(Request::CreateMultipart, key, error))?;
        let id = answer.upload_id.map(MultipartId);
        id.ok_or_else(|| Request::CreateMultipart.refused(key, "the answer has no upload id"))
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        _offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        let seal = self.seal(&segments).await;
        self.part_sealed(key, id, number, segments, seal).await
    }

    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), Error> {
        let size = parts.iter().map(|part| part.size).sum();
        let parts = parts.iter().map(|part| {
            CompletedPart::builder().part_number(i32::from(part.number)).e_tag(&part.etag).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&*self.bucket).key(self.full_key(key));
        let request = request.upload_id(&id.0).multipart_upload(parts);
        // Some services copy the parts together now.
        let answer = request.customize().config_override(attempt(transfer(size))).send().await;
        answer.map_err(|error| classify(Request::Complete, key, error))?;
        Ok(())
    }

    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Error> {
        let request = self.client.abort_multipart_upload().bucket(&*self.bucket).key(self.full_key(key));
        let answer = request.upload_id(&id.0).customize().config_override(attempt(CONTROL)).send().await;
        match answer.map_err(|error| classify(Request::Abort, key, error)) {
            Ok(_) | Err(Error::UnknownUpload { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, Error> {
        multiparts::open(self).await
    }

    fn part_size(&self) -> u64 {
        super::PART_SIZE
    }

    fn prefers_large_chunks(&self) -> bool {
        true
    }

    async fn explore(&self, key: &str) -> Result<(), Error> {
        if !self.encrypted {
            self.checks.store(checksums::are_looked_at(self, key).await?, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[async_trait]
impl Sweep for S3 {
    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        delete::delete(self, keys).await
    }
}

#[async_trait]
impl Presign for S3 {
    async fn presign(&self, key: &str) -> Result<String, Error> {
        // A moment in the past that stays the same for a while, so that caches see the same URL.
        let now = clock::seconds();
        let signed_at = UNIX_EPOCH + Duration::from_secs(now - now % SIGNED_ALIKE.as_secs());
        let signing = PresigningConfig::builder().start_time(signed_at).expires_in(SIGNED_FOR + SIGNED_ALIKE);
        let signing = signing.build().map_err(|error| Request::Get.refused(key, error))?;
        let request = self.client.get_object().bucket(&*self.bucket).key(self.full_key(key));
        let request = request.response_content_type("application/octet-stream").presigned(signing).await;
        let request = request.map_err(|error| classify(Request::Get, key, error))?;
        Ok(request.uri().to_owned())
    }
}

impl Store for S3 {
    fn presigner(&self) -> Option<&dyn Presign> {
        Some(self)
    }
}
