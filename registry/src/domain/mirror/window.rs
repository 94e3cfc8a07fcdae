// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The last bytes that were fetched of a blob, for all who read it while it is fetched.
//!
//! Guarantees: a reader never holds up the fetch: whoever is slower than the window is long falls out of it and is
//! told so. The last bytes of the blob are shown only when its digest was found to be right. Not more than its
//! capacity is kept, but for one piece.
//! With each piece goes the hash of all up to its end, so that who falls out can go on hashing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stowage_oci::Hasher;
use tokio::sync::watch;

/// What is held back at the end of a blob until its digest is right, in bytes.
pub(super) const HELD_BACK: u64 = 64 << 10;

/// A piece of a blob.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Of everything up to the end of these bytes.
    pub(super) hasher: Hasher,
}

/// What is to be had at a place.
#[derive(Debug)]
pub(super) enum Read {
    /// These bytes.
    Piece(Piece),
    /// Nothing yet.
    Wait,
    /// Nothing any more: the reader fell out.
    Passed,
    /// The fetch has ended, and there is nothing at this place.
    Over,
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    capacity: u64,
    begun: Instant,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<(u64, Bytes, Hasher)>,
    begin: u64,
    end: u64,
    is_right: bool,
    is_over: bool,
}

impl Window {
    pub(super) fn new(size: u64, capacity: u64) -> Self {
        let changed = watch::Sender::new(());
        Self { size, capacity, begun: Instant::now(), state: Mutex::default(), changed }
    }

    /// The length of the blob.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Where what is held back begins.
    pub(super) const fn held_back(&self) -> u64 {
        self.size.saturating_sub(HELD_BACK)
    }

    /// Adds the next bytes; `hasher` is that of all up to their end. They do not go over the place where what is held
    /// back begins.
    pub(super) fn put(&self, bytes: Bytes, hasher: Hasher) {
        let mut state = self.state();
        let at = state.end;
        state.end += bytes.len() as u64;
        state.pieces.push_back((at, bytes, hasher));
        while state.end - state.begin > self.capacity && state.pieces.len() > 1 {
            if let Some((_, bytes, _)) = state.pieces.pop_front() {
                state.begin += bytes.len() as u64;
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// The digest is right: all may be seen.
    pub(super) fn is_right(&self) {
        self.state().is_right = true;
        self.changed.send_replace(());
    }

    /// Nothing more comes.
    pub(super) fn is_over(&self) {
        self.state().is_over = true;
        self.changed.send_replace(());
    }

    /// Whether an answer may begin: a blob that is all held back must be right first.
    pub(super) fn may_begin(&self) -> bool {
        self.size > HELD_BACK || self.state().is_right
    }

    /// How long the rest takes, if it comes as fast as what came so far.
    pub(super) fn left(&self) -> Duration {
        let done = self.done();
        let left = u128::from(self.size.saturating_sub(done));
        let milliseconds = left * self.begun.elapsed().as_millis() / u128::from(done.max(1));
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }

    /// How much was fetched.
    pub(super) fn done(&self) -> u64 {
        self.state().end
    }

    /// Told of every change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is to be had at byte `at`.
    pub(super) fn read(&self, at: u64) -> Read {
        let state = self.state();
        if at < state.begin {
            return Read::Passed;
        }
        let shown = if state.is_right { state.end } else { state.end.min(self.held_back()) };
        if at >= shown {
            return if state.is_over { Read::Over } else { Read::Wait };
        }
        let next = state.pieces.partition_point(|(begin, _, _)| *begin <= at);
        let Some((begin, bytes, hasher)) = next.checked_sub(1).and_then(|at| state.pieces.get(at)) else {
            return Read::Wait;
        };
        let skip = usize::try_from(at - begin).unwrap_or(usize::MAX).min(bytes.len());
        Read::Piece(Piece { bytes: bytes.slice(skip..), hasher: hasher.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn put(window: &Window, hasher: &mut Hasher, length: u64) {
        let bytes = Bytes::from(vec![7; usize::try_from(length).unwrap()]);
        hasher.update(&bytes);
        window.put(bytes, hasher.clone());
    }

    fn length(read: Read) -> Result<usize, String> {
        match read {
            Read::Piece(piece) => Ok(piece.bytes.len()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn n8_the_end_is_held_back_until_it_is_right() {
        let window = Window::new(HELD_BACK + 10, 1 << 20);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        assert_eq!(length(window.read(0)), Err("Wait".to_owned()));
        put(&window, &mut hasher, 10);
        put(&window, &mut hasher, HELD_BACK);
        assert_eq!(length(window.read(4)), Ok(6), "what comes before is shown at once");
        assert_eq!(length(window.read(10)), Err("Wait".to_owned()));
        window.is_right();
        assert_eq!(length(window.read(10)), Ok(65_536));
        window.is_over();
        assert_eq!(length(window.read(HELD_BACK + 10)), Err("Over".to_owned()));
    }

    #[test]
    fn of_what_is_wrong_the_end_is_never_shown() {
        let window = Window::new(10, 1 << 20);
        put(&window, &mut Hasher::new(Algorithm::Sha256), 10);
        window.is_over();
        assert_eq!(length(window.read(0)), Err("Over".to_owned()));
    }

    #[test]
    fn who_is_slower_than_the_window_is_long_falls_out() {
        let window = Window::new(1 << 30, 100);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for _ in 0..5 {
            put(&window, &mut hasher, 40);
        }
        assert_eq!(length(window.read(119)), Err("Passed".to_owned()));
        assert_eq!(length(window.read(120)), Ok(40));
        assert_eq!(length(window.read(165)), Ok(35));
        assert_eq!(window.done(), 200);
    }

    #[test]
    fn with_a_piece_goes_the_hash_up_to_its_end() {
        let window = Window::new(1 << 30, 100);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        put(&window, &mut hasher, 3);
        put(&window, &mut hasher, 4);
        let Read::Piece(piece) = window.read(3) else { unreachable!() };
        assert_eq!(piece.hasher.finish(), stowage_oci::Digest::of(Algorithm::Sha256, &[7; 7]));
    }
}
