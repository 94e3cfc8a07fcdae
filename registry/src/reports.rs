// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reports of runs: kept in the bucket, so that a database that is made again knows what earlier runs came to.
//!
//! A report is two gzip members: what is known of the run in a few words, then all of it in lines of JSON. So whoever
//! only wants to know how runs ended reads the beginning of each.
//! Order: intend → store → record. A run whose report could not be stored is a run all the same; it is not remembered.

use std::io::{self, Cursor, Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stowage_oci::Digest;

use crate::blobs::{self, Store};
use crate::key::{Generation, Key, RunKind, RunName, RunOutcome};
use crate::meta::{self, Epoch, MetaStore, RunRow};

/// How many reports of a name are kept.
pub(crate) const KEPT: u32 = 30;
/// Where the first member ends at the latest.
const HEAD: u64 = 8 * 1024;
/// The longest first member, read.
const LONGEST_HEAD: u64 = 64 * 1024;

/// Why a report was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] meta::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// It took too long, and what was written goes.
    #[error("storing the report took too long")]
    TooLate,
    /// What is in the bucket is no report.
    #[error("the report cannot be read")]
    Unreadable(#[source] io::Error),
}

/// What the first member says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// In milliseconds since 1970.
    started: u64,
    /// Likewise.
    ended: u64,
    summary: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<Digest>,
}

/// Lines on their way into a report.
pub(crate) struct Lines(GzEncoder<Vec<u8>>);

impl Lines {
    /// None yet.
    pub(crate) fn begin() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    /// Adds one.
    pub(crate) fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        self.0.write_all(b"\n")
    }

    /// All of them.
    pub(crate) fn end(self) -> io::Result<Bytes> {
        self.0.finish().map(Bytes::from)
    }
}

/// A run that has ended.
pub(crate) struct Finished {
    pub(crate) kind: RunKind,
    pub(crate) name: RunName,
    /// In milliseconds since 1970.
    pub(crate) started: u64,
    /// Likewise.
    pub(crate) ended: u64,
    pub(crate) outcome: RunOutcome,
    /// Its summary: an object as JSON, of 4 KiB at most.
    pub(crate) summary: String,
    /// The hash of the rules that its plan was made by, if it came to the end of it.
    pub(crate) rules: Option<Digest>,
    /// What [`Lines`] made.
    pub(crate) lines: Bytes,
}

/// Stores the report of a run, and remembers the run.
pub(crate) async fn keep(
    meta: &dyn MetaStore,
    store: &dyn Store,
    epoch: Epoch,
    run: Finished,
) -> Result<(), ReportError> {
    let Finished { kind, name, started, ended, outcome, summary, rules, lines } = run;
    let unreadable = |error: serde_json::Error| ReportError::Unreadable(error.into());
    let head = Head { started, ended, summary: serde_json::from_str(&summary).map_err(unreadable)?, rules };
    let json = serde_json::to_vec(&head).map_err(unreadable)?;
    let first = compressed(&json).map_err(ReportError::Unreadable)?;
    let generation = Generation::next(ended);
    let row = RunRow { kind, name, generation, outcome, started, ended, summary, rules };
    let key = row.key();
    let intent = meta.intend_run(epoch, &key).await?;
    store.put(&key.to_string(), vec![Bytes::from(first), lines]).await?;
    if meta.record_run(epoch, intent, &row).await? { Ok(()) } else { Err(ReportError::TooLate) }
}

/// What the report of a key says of its run.
pub(crate) async fn read_head(
    store: &dyn Store,
    key: &Key,
    size: u64,
) -> Result<Option<RunRow>, ReportError> {
    let Key::Run { kind, name, generation, outcome } = key else { return Ok(None) };
    let Some(content) = store.get(&key.to_string(), Some(0..size.min(HEAD))).await? else { return Ok(None) };
    let bytes: Vec<Bytes> = content.stream.try_collect().await?;
    let bytes = bytes.concat();
    let (head, _) = decoded(&bytes).map_err(ReportError::Unreadable)?;
    Ok(Some(RunRow {
        kind: *kind,
        name: name.clone(),
        generation: *generation,
        outcome: *outcome,
        started: head.started,
        ended: head.ended,
        summary: head.summary.to_string(),
        rules: head.rules,
    }))
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = GzEncoder::new(Vec::new(), Compression::fast());
    member.write_all(bytes)?;
    member.finish()
}

/// What the first member says, and what follows it.
fn decoded(bytes: &[u8]) -> io::Result<(Head, &[u8])> {
    let mut member = GzDecoder::new(bytes).take(LONGEST_HEAD);
    let mut json = Vec::new();
    member.read_to_end(&mut json)?;
    Ok((serde_json::from_slice(&json)?, member.into_inner().into_inner()))
}

/// The report of the newest run of a name: its summary as JSON, and its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The summary: JSON.
    pub summary: String,
    /// Lines of JSON, compressed with gzip.
    pub lines: Bytes,
}

/// The newest report of a name; `None`: there is none.
pub async fn newest(
    meta: &dyn MetaStore,
    store: &dyn Store,
    kind: RunKind,
    name: &RunName,
) -> Result<Option<Told>, ReportError> {
    let Some(run) = meta.runs(kind, name, 1).await?.pop() else { return Ok(None) };
    let Some(whole) = blobs::whole(store, &run.key().to_string()).await? else { return Ok(None) };
    let (_, rest) = decoded(&whole).map_err(ReportError::Unreadable)?;
    Ok(Some(Told { summary: run.summary, lines: whole.slice_ref(rest) }))
}

impl Told {
    /// The lines as they were told, piece by piece.
    pub fn pieces(self) -> impl Iterator<Item = io::Result<Bytes>> + Send {
        const PIECE: usize = 64 << 10;
        let mut lines = GzDecoder::new(Cursor::new(self.lines));
        std::iter::from_fn(move || {
            let mut piece = vec![0; PIECE];
            let read = lines.read(&mut piece).map(|length| {
                piece.truncate(length);
                Bytes::from(piece)
            });
            read.map(|piece| (!piece.is_empty()).then_some(piece)).transpose()
        })
    }

    /// The lines as they were told. At most `limit` bytes are read.
    pub fn text(&self, limit: u64) -> Result<String, ReportError> {
        let mut text = String::new();
        let lines = GzDecoder::new(&self.lines[..]);
        lines.take(limit).read_to_string(&mut text).map_err(ReportError::Unreadable)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_read_without_the_second() {
        let head =
            Head { started: 1, ended: 2, summary: serde_json::json!({ "command": "gc" }), rules: None };
        let mut bytes = compressed(&serde_json::to_vec(&head).unwrap()).unwrap();
        let mut lines = Lines::begin();
        for number in 0..100_000 {
            lines.push(&number).unwrap();
        }
        let lines = lines.end().unwrap();
        bytes.extend_from_slice(&lines);
        assert_eq!(decoded(&bytes).unwrap(), (head.clone(), &lines[..]));
        bytes.truncate(usize::try_from(HEAD).unwrap());
        assert_eq!(decoded(&bytes).unwrap().0, head, "the rest need not be there");
        assert!(decoded(b"no report").is_err());
    }
}
