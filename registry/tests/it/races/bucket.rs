// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The bucket that all share: it is slow, executes requests late or twice, and loses answers.
//!
//! Tags of parts are those of their bytes, as in S3: the same bytes sent again change nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::blobs::{
    Content, Error, Memory, MultipartId, Object, OpenMultipart, Part, Read, Store, Sweep, Write,
};
use stowage_registry::key::{Form, Generation, Key};
use uuid::Uuid;

use super::reader::is_ledger;
use super::tripwire::{Trip, Tripwire};

/// What the store does to us. Probabilities are of one request.
#[expect(clippy::struct_excessive_bools, reason = "each is one way to misbehave")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// The longest delay of a request.
    pub(super) delay: Duration,
    /// A delete is executed once more, up to half a second later.
    pub(super) repeats_delete: f64,
    /// The same of a put.
    pub(super) repeats_put: f64,
    /// The same of a part.
    pub(super) repeats_part: f64,
    /// The request takes effect, and its answer is lost.
    pub(super) loses_answer: f64,
    /// `complete` refuses unless every part that was sent is listed (Ceph RGW).
    pub(super) wants_every_part: bool,
    /// `complete` takes whatever came last under a part's number.
    pub(super) ignores_tags: bool,
    /// Nobody sees which epochs there were.
    pub(super) hides_epochs: bool,
    /// Data of one digest has one key, whatever its generation.
    pub(super) names_by_digest: bool,
    /// Records of promotions are taken, and not kept.
    pub(super) forgets_ledger: bool,
}

/// The parts of a multipart upload by number: the tag we gave, and what the memory knows.
type Sent = BTreeMap<u16, (String, Part)>;

const LATEST: Duration = Duration::from_millis(500);

/// The store behind all views of it.
pub(super) struct Bucket {
    memory: Arc<Memory>,
    manners: Manners,
    random: Mutex<StdRng>,
    parts: Mutex<HashMap<String, Sent>>,
    /// Keys that a late put made again after they were removed.
    revived: Arc<Mutex<BTreeSet<String>>>,
    /// Requests that were executed once more.
    pub(super) late: Arc<AtomicU64>,
    /// Answers that were lost.
    pub(super) lost: AtomicU64,
}

impl Bucket {
    pub(super) fn new(part_size: u64, manners: Manners, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            memory: Arc::new(Memory::new().with_part_size(part_size)),
            manners,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            parts: Mutex::default(),
            revived: Arc::default(),
            late: Arc::default(),
            lost: AtomicU64::new(0),
        })
    }

    /// What one process sees; its requests may be its last.
    pub(super) fn view(self: &Arc<Self>, wire: &Tripwire) -> Arc<View> {
        Arc::new(View { bucket: Arc::clone(self), wire: wire.clone(), calm: false })
    }

    /// What a process sees to whom the bucket is kind.
    pub(super) fn calm(self: &Arc<Self>) -> Arc<View> {
        Arc::new(View { bucket: Arc::clone(self), wire: Tripwire::new(0.0, 0), calm: true })
    }

    /// The truth: every key and its content, without delay or fault.
    pub(super) async fn contents(&self) -> BTreeMap<String, Bytes> {
        use futures::TryStreamExt as _;
        let mut found = BTreeMap::new();
        for object in self.memory.list("", None, usize::MAX).await.unwrap() {
            let content = self.memory.get(&object.key, None).await.unwrap().unwrap();
            let pieces: Vec<Bytes> = content.stream.try_collect().await.unwrap();
            found.insert(object.key, Bytes::from(pieces.concat()));
        }
        found
    }

    /// Whether a late put made the key again after it was removed.
    pub(super) fn is_revived(&self, key: &str) -> bool {
        self.revived.lock().unwrap().contains(key)
    }

    fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.random.lock().unwrap().random_bool(probability)
    }

    fn moment(&self, longest: Duration) -> Duration {
        if longest.is_zero() {
            return longest;
        }
        longest.mul_f64(self.random.lock().unwrap().random())
    }

    async fn delay(&self) {
        // Half of the requests are quick: the others then meet what came after them.
        if self.chance(0.5) {
            let delay = self.moment(self.manners.delay);
            tokio::time::sleep(delay).await;
        }
    }

    #[expect(clippy::disallowed_methods, reason = "it outlives whoever sent it")]
    fn once_more(&self, request: impl Future<Output = ()> + Send + 'static) {
        let delay = self.moment(LATEST);
        let late = Arc::clone(&self.late);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            request.await;
            late.fetch_add(1, Ordering::Relaxed);
        });
    }

    fn answer<T>(&self, operation: &'static str, key: &str, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_ok() && self.chance(self.manners.loses_answer) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(Error::Unavailable { operation, key: key.to_owned(), source: "answer lost".into() });
        }
        outcome
    }

    /// The key, or that which all data of its digest share.
    fn named(&self, key: &str) -> String {
        if !self.manners.names_by_digest {
            return key.to_owned();
        }
        match key.parse() {
            Ok(Key::Blob { digest, size, form: Form::Inline, .. }) => {
                let generation = Generation::from_uuid(Uuid::nil());
                Key::Blob { digest, generation, size, form: Form::Inline }.to_string()
            }
            _ => key.to_owned(),
        }
    }

    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error> {
        if self.manners.forgets_ledger && is_ledger(key) {
            return Ok(());
        }
        let key = self.named(key);
        self.memory.put(&key, segments.clone()).await?;
        if self.chance(self.manners.repeats_put) {
            let (memory, revived) = (Arc::clone(&self.memory), Arc::clone(&self.revived));
            self.once_more(async move {
                if memory.head(&key).await.unwrap().is_none() {
                    revived.lock().unwrap().insert(key.clone());
                }
                memory.put(&key, segments).await.unwrap();
            });
        }
        Ok(())
    }

    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let keys: Vec<String> = keys.iter().map(|key| self.named(key)).collect();
        self.memory.delete(&keys).await?;
        {
            let mut revived = self.revived.lock().unwrap();
            for key in &keys {
                revived.remove(key);
            }
        }
        if self.chance(self.manners.repeats_delete) {
            let memory = Arc::clone(&self.memory);
            self.once_more(async move { memory.delete(&keys).await.unwrap() });
        }
        Ok(())
    }

    async fn part(
        self: &Arc<Self>,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        let part = self.send_part(key, id, number, offset, segments.clone()).await?;
        if self.chance(self.manners.repeats_part) {
            let (bucket, key, id) = (Arc::clone(self), key.to_owned(), id.clone());
            self.once_more(async move {
                // The upload may be closed by then.
                drop(bucket.send_part(&key, &id, number, offset, segments).await);
            });
        }
        Ok(part)
    }

    async fn send_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        let tag = Digest::of(Algorithm::Sha256, &segments.concat()).hex();
        let part = self.memory.upload_part(key, id, number, offset, segments).await?;
        let mut parts = self.parts.lock().unwrap();
        parts.entry(id.0.clone()).or_default().insert(number, (tag.clone(), part.clone()));
        Ok(Part { etag: tag, ..part })
    }

    async fn complete(&self, key: &str, id: &MultipartId, listed: &[Part]) -> Result<(), Error> {
        let sent = self.parts.lock().unwrap().get(&id.0).cloned().unwrap_or_default();
        let refused = |why: &'static str| Error::Refused {
            operation: "complete",
            key: key.to_owned(),
            source: why.into(),
        };
        if self.manners.wants_every_part && sent.len() != listed.len() {
            return Err(refused("a part that was sent is not listed"));
        }
        let mut parts = Vec::with_capacity(listed.len());
        for part in listed {
            let (tag, last) = sent.get(&part.number).ok_or_else(|| refused("no such part"))?;
            if *tag != part.etag && !self.manners.ignores_tags {
                return Err(refused("the part is another"));
            }
            parts.push(last.clone());
        }
        self.memory.complete(key, id, &parts).await
    }
}

/// The bucket as one process sees it.
pub(super) struct View {
    bucket: Arc<Bucket>,
    wire: Tripwire,
    calm: bool,
}

impl View {
    async fn around<T>(
        &self,
        operation: &'static str,
        key: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.calm {
            return request.await;
        }
        let trip = self.wire.roll();
        if let Some(Trip::Before(grave)) = &trip {
            grave.pass().await;
        }
        self.bucket.delay().await;
        let outcome = request.await;
        if let Some(Trip::After(grave)) = &trip {
            grave.pass().await;
        }
        self.bucket.answer(operation, key, outcome)
    }
}

#[async_trait]
impl Read for View {
    async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        let named = self.bucket.named(key);
        self.around("head", key, self.bucket.memory.head(&named)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Content>, Error> {
        let named = self.bucket.named(key);
        self.around("get", key, self.bucket.memory.get(&named, range)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error> {
        if self.bucket.manners.hides_epochs && prefix == Key::EPOCHS {
            return Ok(Vec::new());
        }
        self.around("list", prefix, self.bucket.memory.list(prefix, after, limit)).await
    }
}

#[async_trait]
impl Write for View {
    async fn put(&self, key: &str, segments: Vec<Bytes>) -> Result<(), Error> {
        self.around("put", key, self.bucket.put(key, segments)).await
    }

    async fn create_multipart(&self, key: &str) -> Result<MultipartId, Error> {
        self.around("create", key, self.bucket.memory.create_multipart(key)).await
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &MultipartId,
        number: u16,
        offset: u64,
        segments: Vec<Bytes>,
    ) -> Result<Part, Error> {
        self.around("part", key, self.bucket.part(key, id, number, offset, segments)).await
    }

    async fn complete(&self, key: &str, id: &MultipartId, parts: &[Part]) -> Result<(), Error> {
        self.around("complete", key, self.bucket.complete(key, id, parts)).await
    }

    async fn abort(&self, key: &str, id: &MultipartId) -> Result<(), Error> {
        self.around("abort", key, self.bucket.memory.abort(key, id)).await
    }

    async fn open_multiparts(&self) -> Result<Vec<OpenMultipart>, Error> {
        self.around("list", "", self.bucket.memory.open_multiparts()).await
    }

    fn part_size(&self) -> u64 {
        self.bucket.memory.part_size()
    }

    fn prefers_large_chunks(&self) -> bool {
        false
    }
}

#[async_trait]
impl Sweep for View {
    async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let first = keys.first().map_or("", String::as_str);
        self.around("delete", first, self.bucket.delete(keys)).await
    }
}

impl Store for View {}
