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
use crate::meta::{BlobRow, Error, ManifestRow, MetaStore};
use crate::ops::tasks::Tasks;

/// Questions of one kind at the same time. Few, so that those that come meanwhile go together: a look-up among
/// many costs the database a fraction of one alone.
const LANES: usize = 2;
/// Look-ups of one question.
const MOST: usize = 64;

type Found<R> = Result<Option<R>, Arc<Error>>;
type Named<N, R> = Gather<(Name, N), Found<R>>;

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
            tagged: named(outage, tasks, move |wanted| {
                let meta = Arc::clone(&one);
                Box::pin(async move { meta.tagged(&wanted).await })
            }),
            manifests: named(outage, tasks, move |wanted| {
                let meta = Arc::clone(&two);
                Box::pin(async move { meta.manifests(&wanted).await })
            }),
            blobs: named(outage, tasks, move |wanted| {
                let meta = Arc::clone(&three);
                Box::pin(async move { meta.blobs(&wanted).await })
            }),
        }
    }

    /// The live manifest that `reference` names.
    pub(super) async fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<Option<ManifestRow>, Error> {
        let found = match reference {
            Reference::Tag(tag) => self.tagged.ask((repository.clone(), tag.clone())).await,
            Reference::Digest(digest) => self.manifests.ask((repository.clone(), *digest)).await,
        };
        found.map_err(own)
    }

    /// The blob, if the repository sees it and its data is stored.
    pub(super) async fn blob(&self, repository: &Name, digest: &Digest) -> Result<Option<BlobRow>, Error> {
        self.blobs.ask((repository.clone(), *digest)).await.map_err(own)
    }
}

fn own(shared: Arc<Error>) -> Error {
    Arc::try_unwrap(shared).unwrap_or_else(|shared| shared.again())
}

/// One statement for all of `wanted`.
trait Statement<K, R>: Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<Option<R>>, Error>> + Send + Sync {}

impl<K, R, F> Statement<K, R> for F where
    F: Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<Option<R>>, Error>> + Send + Sync
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

async fn answers<K: Key, R: Clone>(
    outage: &Outage,
    statement: &impl Statement<K, R>,
    wanted: Vec<K>,
) -> Vec<Found<R>> {
    let count = wanted.len();
    if outage.is_on() {
        return vec![Err(Arc::new(Error::away())); count];
    }
    let alone = (count > 1).then(|| wanted.clone());
    match (statement(wanted).await, alone) {
        (Ok(rows), _) => rows.into_iter().map(Ok).collect(),
        (Err(Error::Unreadable { .. }), Some(wanted)) => {
            let mut answers = Vec::with_capacity(count);
            for key in wanted {
                let found = statement(vec![key]).await.map(|mut rows| rows.pop().flatten());
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
