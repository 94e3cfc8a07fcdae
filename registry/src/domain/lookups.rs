// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What requests ask the database for: manifests and blobs by name. Asked together when many ask at once, never
//! remembered: a tag is what the database says after the request came, on every replica.
//!
//! A failure is told to all who asked together. But a row that cannot be read is the trouble of its own asker,
//! and who waits behind a question that found the database away does not find out again.

use std::sync::Arc;

use futures::future::BoxFuture;
use stowage_oci::{Digest, Name, Reference, Tag};

use super::gather::{Gather, Key};
use super::outage::Outage;
use crate::meta::{BlobRow, Epoch, Error, ManifestRow, MetaStore};
use crate::ops::tasks::Tasks;

/// Questions of one kind at the same time. Few, so that those that come meanwhile go together: a look-up among
/// many costs the database a fraction of one alone.
const LANES: usize = 2;
/// Look-ups of one question.
const MOST: usize = 64;

type Found<R> = Result<Option<R>, Arc<Error>>;
type Named<N, R> = Gather<(Epoch, (Name, N)), Found<R>>;

/// The look-ups of one process.
pub(super) struct Lookups {
    tagged: Named<Tag, ManifestRow>,
    manifests: Named<Digest, ManifestRow>,
    blobs: Named<Digest, BlobRow>,
}

impl Lookups {
    pub(super) fn new(meta: &Arc<dyn MetaStore>, outage: &Arc<Outage>, tasks: &Tasks) -> Self {
        let [one, two, three] = [meta, meta, meta].map(Arc::clone);
        Self {
            tagged: named(outage, tasks, move |epoch, wanted| {
                let meta = Arc::clone(&one);
                Box::pin(async move { meta.tagged(epoch, &wanted).await })
            }),
            manifests: named(outage, tasks, move |epoch, wanted| {
                let meta = Arc::clone(&two);
                Box::pin(async move { meta.manifests(epoch, &wanted).await })
            }),
            blobs: named(outage, tasks, move |epoch, wanted| {
                let meta = Arc::clone(&three);
                Box::pin(async move { meta.blobs(epoch, &wanted).await })
            }),
        }
    }

    /// The live manifest that `reference` names.
    pub(super) async fn manifest(
        &self,
        epoch: Epoch,
        repository: &Name,
        reference: &Reference,
    ) -> Result<Option<ManifestRow>, Error> {
        let found = match reference {
            Reference::Tag(tag) => self.tagged.ask((epoch, (repository.clone(), tag.clone()))).await,
            Reference::Digest(digest) => self.manifests.ask((epoch, (repository.clone(), *digest))).await,
        };
        found.map_err(own)
    }

    /// The blob, if the repository sees it and its data is stored.
    pub(super) async fn blob(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
    ) -> Result<Option<BlobRow>, Error> {
        self.blobs.ask((epoch, (repository.clone(), *digest))).await.map_err(own)
    }
}

fn own(shared: Arc<Error>) -> Error {
    Arc::try_unwrap(shared).unwrap_or_else(|shared| shared.again())
}

/// One statement for all of `wanted`.
trait Statement<K, R>:
    Fn(Epoch, Vec<K>) -> BoxFuture<'static, Result<Vec<Option<R>>, Error>> + Send + Sync
{
}

impl<K, R, F> Statement<K, R> for F where
    F: Fn(Epoch, Vec<K>) -> BoxFuture<'static, Result<Vec<Option<R>>, Error>> + Send + Sync
{
}

fn named<N, R>(
    outage: &Arc<Outage>,
    tasks: &Tasks,
    statement: impl Statement<(Name, N), R> + 'static,
) -> Named<N, R>
where
    (Name, N): Key,
    R: Clone + Send + 'static,
{
    let (outage, statement) = (Arc::clone(outage), Arc::new(statement));
    Gather::new(LANES, MOST, tasks.clone(), move |wanted| {
        let (outage, statement) = (Arc::clone(&outage), Arc::clone(&statement));
        Box::pin(async move { answers(&outage, &*statement, wanted).await })
    })
}

/// All that ask in the newest of their epochs are answered; the others are told that theirs is over.
async fn answers<K: Key, R: Clone>(
    outage: &Outage,
    statement: &impl Statement<K, R>,
    wanted: Vec<(Epoch, K)>,
) -> Vec<Found<R>> {
    let count = wanted.len();
    if outage.is_on() {
        return vec![Err(Arc::new(Error::away())); count];
    }
    let Some(newest) = wanted.iter().map(|(epoch, _)| *epoch).max() else { return Vec::new() };
    let current = wanted.iter().filter(|(epoch, _)| *epoch == newest).map(|(_, key)| key.clone());
    let mut current = answers_in(newest, outage, statement, current.collect()).await.into_iter();
    let over = || Err(Arc::new(Error::Superseded));
    let answer = |(epoch, _): &(Epoch, K)| {
        if *epoch == newest { current.next().unwrap_or_else(over) } else { over() }
    };
    wanted.iter().map(answer).collect()
}

async fn answers_in<K: Key, R: Clone>(
    epoch: Epoch,
    outage: &Outage,
    statement: &impl Statement<K, R>,
    wanted: Vec<K>,
) -> Vec<Found<R>> {
    let count = wanted.len();
    let alone = (count > 1).then(|| wanted.clone());
    match (statement(epoch, wanted).await, alone) {
        (Ok(rows), _) => rows.into_iter().map(Ok).collect(),
        (Err(Error::Unreadable { .. }), Some(wanted)) => {
            let mut answers = Vec::with_capacity(count);
            for key in wanted {
                let found = statement(epoch, vec![key]).await.map(|mut rows| rows.pop().flatten());
                answers.push(found.map_err(Arc::new));
            }
            answers
        }
        (Err(error), _) => {
            if matches!(error, Error::Unavailable(_)) {
                outage.found();
            }
            vec![Err(Arc::new(error)); count]
        }
    }
}
