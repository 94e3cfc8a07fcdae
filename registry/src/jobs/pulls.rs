// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Snapshots of the record of pulls: at most one a day, so that a rebuild reads one object and what came after it.
//!
//! Flow: what processes have written to the bucket is brought into the database, for one that was killed while the
//! database was away → all of the record is written → what that covers is queued for deletion, but the newest object
//! of each process that may go on: by it a rebuild knows that its last pulls may be missing.

use bytes::Bytes;

use super::gc::GcError;
use crate::blobs::Store;
use crate::domain::pulls::lines::{Line, Lines};
use crate::domain::pulls::{Told, Unrestored, Writers, bring, told};
use crate::key::{Day, Generation, Key};
use crate::meta::{Epoch, MetaStore};
use crate::ops::clock;

/// Rows of a page.
const ROWS: u32 = 1000;
/// Keys of a transaction.
const KEYS: usize = 1000;
/// For how many days a process that has written nothing is known: one that pulls writes every day.
const KNOWN_FOR: i32 = 1;

impl From<Unrestored> for GcError {
    fn from(error: Unrestored) -> Self {
        match error {
            Unrestored::Database(error) => error.into(),
            Unrestored::Store(error) => error.into(),
        }
    }
}

/// Writes a snapshot, unless there is one of today or nothing to put into it.
pub(super) async fn snapshot(meta: &dyn MetaStore, store: &dyn Store, epoch: Epoch) -> Result<(), GcError> {
    let told = told(store).await?;
    let newest = told.snapshots.last().map(|(day, _)| *day);
    let today = meta.record_pulls(&[]).await?.day;
    if told.batches.is_empty() || newest >= Some(today) {
        return Ok(());
    }
    let mut unreadable = Writers::new();
    for key in &told.batches {
        bring(meta, store, epoch, key, &mut unreadable).await?;
    }
    let unreadable: Vec<_> = unreadable.into_iter().collect();
    meta.note_pull_writers(epoch, &unreadable).await?;
    let key = Key::PullSnapshot { day: today, generation: Generation::at(clock::milliseconds()) };
    store.put(&key.to_string(), vec![record(meta).await?]).await?;
    for keys in covered(&told, today).chunks(KEYS) {
        meta.discard(epoch, keys).await?;
    }
    Ok(())
}

/// All of the record.
async fn record(meta: &dyn MetaStore) -> Result<Bytes, GcError> {
    let (mut lines, mut after) = (Lines::default(), None);
    let push = |lines: &mut Lines, line: Line| lines.push(&line).expect("memory takes what is written");
    for (writer, day) in meta.pull_writers().await? {
        push(&mut lines, Line::Writer(writer, day));
    }
    loop {
        let page = meta.pull_stamps(after, ROWS).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (_, stamp) in page {
            push(&mut lines, Line::Pulled(stamp));
        }
    }
    Ok(Bytes::from(lines.finish().expect("memory takes what is written")))
}

/// What a snapshot of today makes superfluous.
fn covered(told: &Told, today: Day) -> Vec<Key> {
    let is_recent = |day: Day| day >= today.plus(-KNOWN_FOR);
    let open = told.open();
    let names_a_process = |key: &Key| matches!(key, Key::Pulls { day, writer, .. } if is_recent(*day) && open.get(writer) == Some(&key));
    let batches = told.batches.iter().filter(|key| !names_a_process(key)).cloned();
    let snapshots = told
        .snapshots
        .iter()
        .map(|(day, generation)| Key::PullSnapshot { day: *day, generation: *generation });
    batches.chain(snapshots).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_covers_all_but_the_newest_object_of_each_process_that_may_go_on() {
        let day = |days| Day::since_1970(days).unwrap();
        let [lives, ended, killed] = [1, 2, 3].map(Generation::at);
        let pulls = |days, writer, number, is_last| Key::Pulls { day: day(days), writer, number, is_last };
        let told = Told {
            snapshots: vec![(day(8), Generation::at(9))],
            batches: vec![
                pulls(5, killed, 1, false),
                pulls(9, lives, 1, false),
                pulls(9, ended, 1, false),
                pulls(9, lives, 2, false),
                pulls(10, ended, 2, true),
            ],
        };
        let covered = covered(&told, day(10));
        let stays: Vec<&Key> = told.batches.iter().filter(|key| !covered.contains(key)).collect();
        assert_eq!(stays, [&pulls(9, lives, 2, false)]);
        assert_eq!(covered.len(), 5, "the earlier snapshot, too");
    }
}
