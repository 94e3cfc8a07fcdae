// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which manifests are pulled, as one process sees it.
//!
//! Flow: a pull puts its manifest into the set of today → every ten seconds what is new goes to the database, in one
//! statement → every ten minutes, the first of a day at once, to the bucket, under the name of this process; and
//! whatever is left at its end.
//! Guarantees: a process that is killed loses ten seconds. When the database is lost with it, ten minutes, which the
//! bucket shows by the lack of a last object. A new incarnation of the database, when it is compared with the bucket,
//! is told all of today again.
//! Never: asks anything for a pull.

pub mod lines;
mod restore;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stowage_oci::{Digest, Name};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Domain;
use super::trust::Token;
use crate::key::{Day, Generation, Key};
use crate::meta::{self, Epoch, Today};
use crate::ops::clock;
use lines::Lines;
pub(crate) use restore::bring;
pub(super) use restore::restore;
pub use restore::{Told, Unrestored, Writers, told};

/// How often the database is told.
const SEND: Duration = Duration::from_secs(10);
/// How often the bucket is.
const WRITE: Duration = Duration::from_mins(10);
/// How long the last of both may take.
const LAST: Duration = Duration::from_secs(5);
/// Manifests of one statement.
const MOST: usize = 10_000;
/// A whole day.
const DAY: Duration = Duration::from_hours(24);

/// What one process has seen pulled.
pub(super) struct Seen {
    writer: Generation,
    state: Mutex<State>,
    /// There is a first of the day.
    first: Notify,
    ending: CancellationToken,
    ended: CancellationToken,
}

/// Manifests by their repositories: so that one that is known already is found without making anything.
type Set = HashMap<Name, HashSet<Digest>>;

#[derive(Default)]
struct State {
    today: Set,
    /// The day, and when it ends; `None`: the database has not said yet.
    day: Option<(Day, Instant)>,
    unsent: Vec<(Name, Digest)>,
    unwritten: Vec<(Name, Digest)>,
    /// When something was written of this day.
    written: Option<Instant>,
    /// Objects that may have been written.
    objects: u32,
    /// The epoch in which the database was told everything.
    told: Option<Epoch>,
}

impl State {
    /// Whether it is new.
    fn note(&mut self, repository: &Name, digest: &Digest) -> bool {
        if self.today.get(repository).is_some_and(|known| known.contains(digest)) {
            return false;
        }
        self.today.entry(repository.clone()).or_default().insert(*digest);
        self.unsent.push((repository.clone(), *digest));
        self.unwritten.push((repository.clone(), *digest));
        true
    }

    /// The day may have ended since the database said which it is.
    fn look_at(&mut self, now: Instant) {
        if let Some((day, end)) = self.day
            && now >= end
        {
            self.turn(day.plus(1), end + DAY);
        }
    }

    /// What is not told yet counts as pulled today: rather too late than too early.
    fn turn(&mut self, day: Day, end: Instant) {
        self.day = Some((day, end));
        self.today.clear();
        for (repository, digest) in self.unsent.iter().chain(&self.unwritten) {
            self.today.entry(repository.clone()).or_default().insert(*digest);
        }
        self.written = None;
    }

    /// The database has said which day it is, and `sent` is known there as pulled on it.
    fn learn(&mut self, today: Today, sent: &[(Name, Digest)], now: Instant) {
        let end = now + today.left;
        match self.day {
            Some((day, _)) if day != today.day => {
                self.turn(today.day, end);
                for (repository, digest) in sent {
                    self.today.entry(repository.clone()).or_default().insert(*digest);
                }
            }
            _ => self.day = Some((today.day, end)),
        }
    }

    /// All of today is to be told again.
    fn tell_again(&mut self) {
        let all = self.today.iter();
        self.unsent =
            all.flat_map(|(name, digests)| digests.iter().map(|digest| (name.clone(), *digest))).collect();
    }

    /// Whether the bucket is to be told, and of which day.
    fn is_due(&self, now: Instant) -> Option<Day> {
        let (day, _) = self.day?;
        let is_due = self.written.is_none_or(|written| now.duration_since(written) >= WRITE);
        (is_due && !self.unwritten.is_empty()).then_some(day)
    }
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            writer: Generation::next(clock::milliseconds()),
            state: Mutex::default(),
            first: Notify::new(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, repository: &Name, digest: &Digest) {
        let is_first = {
            let mut state = self.state();
            state.note(repository, digest) && state.written.is_none() && state.unwritten.len() == 1
        };
        if is_first {
            self.first.notify_one();
        }
    }
}

impl Domain {
    /// The manifest was pulled by somebody who counts.
    pub fn note_pulled(&self, repository: &Name, digest: &Digest) {
        self.seen.note(repository, digest);
    }

    /// Tells database and bucket of pulls until [`end_pulls`](Self::end_pulls).
    pub async fn keep_pulls(self) {
        let seen = Arc::clone(&self.seen);
        loop {
            tokio::select! {
                () = tokio::time::sleep(SEND) => {}
                () = seen.first.notified() => {}
                () = seen.ending.cancelled() => break,
            }
            self.tell_pulls().await;
        }
        if tokio::time::timeout(LAST, self.tell_last_pulls()).await.is_err() {
            tracing::warn!("the last pulls were not told in time");
        }
        seen.ended.cancel();
    }

    /// Tells what is left, and ends [`keep_pulls`](Self::keep_pulls), which must run.
    pub async fn end_pulls(&self) {
        self.seen.ending.cancel();
        self.seen.ended.cancelled().await;
    }

    /// This is what another cluster runs.
    pub async fn report_usage(
        &self,
        remote: &str,
        digests: &[Digest],
        references: &[String],
    ) -> Result<(), super::Error> {
        self.write(|_| self.meta.report_usage(remote, digests, references)).await
    }

    async fn tell_pulls(&self) {
        let now = Instant::now();
        self.seen.state().look_at(now);
        if let Err(error) = self.send_pulls().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "pulls are told to the database later");
        }
        let due = self.seen.state().is_due(now);
        if let Some(day) = due {
            self.write_pulls(day, false).await;
        }
    }

    async fn tell_last_pulls(&self) {
        if let Err(error) = self.send_pulls().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last pulls were not told to the database"
            );
        }
        let (day, is_known) = {
            let state = self.seen.state();
            (state.day, state.objects > 0 || !state.unwritten.is_empty())
        };
        if let (Some((day, _)), true) = (day, is_known) {
            self.write_pulls(day, true).await;
        }
    }

    async fn send_pulls(&self) -> Result<(), meta::Error> {
        let token = self.trust.known().filter(|token| token.trusted);
        let anew = token.filter(|token| self.seen.state().told != Some(token.epoch));
        if anew.is_some() {
            self.seen.state().tell_again();
        }
        loop {
            let batch: Vec<_> = {
                let state = self.seen.state();
                state.unsent.iter().take(MOST).cloned().collect()
            };
            if batch.is_empty() {
                break;
            }
            let today = self.meta.record_pulls(&batch).await?;
            let mut state = self.seen.state();
            state.unsent.drain(..batch.len());
            state.learn(today, &batch, Instant::now());
        }
        if let Some(token) = anew {
            self.told_everything(token).await?;
        }
        Ok(())
    }

    /// Who has left nothing in the bucket is not missed there.
    async fn told_everything(&self, token: Token) -> Result<(), meta::Error> {
        let has_written = self.seen.state().objects > 0;
        if has_written {
            self.meta.forget_pull_writer(token.epoch, self.seen.writer).await?;
        }
        self.seen.state().told = Some(token.epoch);
        Ok(())
    }

    async fn write_pulls(&self, day: Day, is_last: bool) {
        let (batch, number) = {
            let mut state = self.seen.state();
            state.objects += 1;
            (state.unwritten.clone(), state.objects)
        };
        let key = Key::Pulls { day, writer: self.seen.writer, number, is_last }.to_string();
        let mut lines = Lines::default();
        let written = batch.iter().try_for_each(|(repository, digest)| lines.pulled(repository, digest));
        let content = written.and_then(|()| lines.finish()).expect("memory takes what is written");
        match self.store.put(&key, vec![Bytes::from(content)]).await {
            Ok(()) => {
                let mut state = self.seen.state();
                state.unwritten.drain(..batch.len());
                state.written = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "pulls are told to the bucket later"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn day(days: i32) -> Day {
        Day::since_1970(days).unwrap()
    }

    fn pulled(state: &mut State, content: &str) -> bool {
        state.note(&"a".parse().unwrap(), &Digest::of(Algorithm::Sha256, content.as_bytes()))
    }

    fn sent(state: &mut State, today: Today, now: Instant) {
        let batch = std::mem::take(&mut state.unsent);
        state.learn(today, &batch, now);
    }

    #[test]
    fn a_manifest_is_told_once_a_day_by_the_databases_clock() {
        let (mut state, begun) = (State::default(), Instant::now());
        let hour = Duration::from_hours(1);
        assert!(pulled(&mut state, "x") && !pulled(&mut state, "x"));
        sent(&mut state, Today { day: day(5), left: hour }, begun);
        state.unwritten.clear();
        state.look_at(begun + hour / 2);
        assert!(!pulled(&mut state, "x"));
        state.look_at(begun + hour);
        assert_eq!(state.day.unwrap().0, day(6), "also while the database is away");
        assert!(pulled(&mut state, "x") && !pulled(&mut state, "x"));
        state.look_at(begun + hour + DAY);
        assert_eq!(state.day.unwrap().0, day(7));
        assert!(!pulled(&mut state, "x"), "it was not told yet, and will be as of the seventh");
    }

    #[test]
    fn a_day_that_the_database_says_is_another_begins_with_what_it_was_just_told() {
        let (mut state, begun) = (State::default(), Instant::now());
        pulled(&mut state, "early");
        sent(&mut state, Today { day: day(5), left: DAY }, begun);
        pulled(&mut state, "late");
        state.unwritten.clear();
        sent(&mut state, Today { day: day(6), left: DAY }, begun);
        assert!(!pulled(&mut state, "late") && pulled(&mut state, "early"));
    }

    #[test]
    fn the_bucket_is_told_the_first_of_a_day_at_once_and_then_every_ten_minutes() {
        let (mut state, begun) = (State::default(), Instant::now());
        pulled(&mut state, "x");
        assert_eq!(state.is_due(begun), None, "nobody knows which day it is");
        sent(&mut state, Today { day: day(5), left: DAY }, begun);
        assert_eq!(state.is_due(begun), Some(day(5)));
        state.unwritten.clear();
        state.written = Some(begun);
        assert_eq!(state.is_due(begun + WRITE), None, "there is nothing to tell");
        pulled(&mut state, "y");
        assert_eq!(state.is_due(begun + WRITE / 2), None);
        assert_eq!(state.is_due(begun + WRITE), Some(day(5)));
        state.look_at(begun + DAY);
        pulled(&mut state, "x");
        assert_eq!(state.is_due(begun + DAY), Some(day(6)));
    }

    #[test]
    fn another_incarnation_of_the_database_is_told_all_of_today() {
        let (mut state, begun) = (State::default(), Instant::now());
        for content in ["x", "y"] {
            pulled(&mut state, content);
        }
        sent(&mut state, Today { day: day(5), left: DAY }, begun);
        assert!(state.unsent.is_empty());
        state.tell_again();
        assert_eq!(state.unsent.len(), 2);
    }
}
