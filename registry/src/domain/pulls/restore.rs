// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the bucket tells of pulls: the newest snapshot, and what processes wrote.
//!
//! Guarantees: an object that cannot be read counts as pulls that are missing, not as none.

use std::collections::BTreeMap;

use super::lines::{self, Line};
use crate::blobs::{self, Store};
use crate::domain::Error;
use crate::domain::reconcile::Comparer;
use crate::key::{Day, Generation, Key};
use crate::meta::{self, Epoch, MetaStore, Stamp};

/// Objects of a page of a listing.
const PAGE: usize = 1000;
/// Stamps of one transaction.
const BATCH: usize = 1000;

/// Processes, and the last day of which pulls of theirs may be missing.
pub type Writers = BTreeMap<Generation, Day>;

/// The objects about pulls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Snapshots, the newest last.
    pub snapshots: Vec<(Day, Generation)>,
    /// Objects of processes, in the order of their days.
    pub batches: Vec<Key>,
}

impl Told {
    /// The last object of each process that has not ended: by it the process is known.
    #[must_use]
    pub fn open(&self) -> BTreeMap<Generation, &Key> {
        let mut newest: BTreeMap<Generation, (Day, u32, &Key)> = BTreeMap::new();
        for key in &self.batches {
            let Key::Pulls { day, writer, number, .. } = key else { continue };
            let known = newest.entry(*writer).or_insert((*day, *number, key));
            if (*day, *number) > (known.0, known.1) {
                *known = (*day, *number, key);
            }
        }
        let has_ended = |writer: &Generation| {
            self.batches
                .iter()
                .any(|key| matches!(key, Key::Pulls { writer: of, is_last: true, .. } if of == writer))
        };
        newest.retain(|writer, _| !has_ended(writer));
        newest.into_iter().map(|(writer, (.., key))| (writer, key)).collect()
    }
}

/// What there is in the bucket.
pub async fn told(store: &dyn Store) -> Result<Told, blobs::Error> {
    let (mut told, mut after) = (Told::default(), None::<String>);
    loop {
        let page = store.list(Key::PULLS, after.as_deref(), PAGE).await?;
        for object in &page {
            match object.key.parse() {
                Ok(Key::PullSnapshot { day, generation }) => told.snapshots.push((day, generation)),
                Ok(key @ Key::Pulls { .. }) => told.batches.push(key),
                _ => {}
            }
        }
        if page.len() < PAGE {
            told.snapshots.sort_unstable();
            return Ok(told);
        }
        after = page.into_iter().next_back().map(|object| object.key);
    }
}

/// Why something was not brought into the database.
#[derive(Debug, thiserror::Error)]
pub enum Unrestored {
    /// The database did not take it.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not give it.
    #[error(transparent)]
    Store(#[from] blobs::Error),
}

impl From<Unrestored> for Error {
    fn from(error: Unrestored) -> Self {
        match error {
            Unrestored::Database(error) => error.into(),
            Unrestored::Store(error) => error.into(),
        }
    }
}

/// Brings into the database what the bucket tells. After its manifests were compared.
pub(in crate::domain) async fn restore(comparer: &Comparer, epoch: Epoch) -> Result<(), Error> {
    let (meta, store) = (&*comparer.meta, &*comparer.store);
    let told = told(store).await?;
    let mut writers = Writers::new();
    for (writer, key) in told.open() {
        if let Key::Pulls { day, .. } = key {
            writers.insert(writer, *day);
        }
    }
    if let Some((day, generation)) = told.snapshots.last() {
        let key = Key::PullSnapshot { day: *day, generation: *generation };
        bring(meta, store, epoch, &key, &mut writers).await?;
    }
    for key in &told.batches {
        bring(meta, store, epoch, key, &mut writers).await?;
    }
    let writers: Vec<_> = writers.into_iter().collect();
    for writers in writers.chunks(BATCH) {
        meta.note_pull_writers(epoch, writers).await?;
    }
    Ok(())
}

/// Brings the stamps of one object into the database, and the processes that it names into `writers`.
pub(crate) async fn bring(
    meta: &dyn MetaStore,
    store: &dyn Store,
    epoch: Epoch,
    key: &Key,
    writers: &mut Writers,
) -> Result<(), Unrestored> {
    let (day, of) = match key {
        Key::Pulls { day, writer, .. } => (*day, *writer),
        Key::PullSnapshot { day, generation } => (*day, *generation),
        _ => return Ok(()),
    };
    // It was listed a moment ago: a snapshot covers it by now.
    let Some(object) = blobs::whole(store, &key.to_string()).await? else { return Ok(()) };
    let (mut stamps, mut damaged): (Vec<Stamp>, _) = (Vec::with_capacity(BATCH), None);
    for line in lines::read(&object, day) {
        match line {
            Ok(Line::Pulled(stamp)) => stamps.push(stamp),
            Ok(Line::Writer(writer, day)) => {
                let known = writers.entry(writer).or_insert(day);
                *known = day.max(*known);
            }
            Err(error) => damaged = Some(error),
        }
        if stamps.len() == BATCH {
            meta.restore_pulls(epoch, &stamps).await?;
            stamps.clear();
        }
    }
    if !stamps.is_empty() {
        meta.restore_pulls(epoch, &stamps).await?;
    }
    if let Some(error) = damaged {
        tracing::error!(object.key = %key, %error, "pulls cannot be read; up to that day they count as unknown");
        writers.insert(of, day);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(days: i32, writer: u64, number: u32, is_last: bool) -> Key {
        let day = Day::since_1970(days).unwrap();
        let writer = Generation::from_uuid(uuid::Uuid::from_u64_pair(0, writer));
        Key::Pulls { day, writer, number, is_last }
    }

    #[test]
    fn a_process_is_open_until_its_last_object_and_known_by_its_newest() {
        let newest = batch(8, 1, 11, false);
        let batches = vec![
            batch(7, 1, 9, false),
            batch(7, 2, 1, false),
            newest.clone(),
            batch(8, 1, 10, false),
            batch(8, 2, 2, true),
        ];
        let told = Told { batches, ..Told::default() };
        let open: Vec<&Key> = told.open().into_values().collect();
        assert_eq!(open, [&newest]);
    }
}
