// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How far a long job is: a bar on a terminal, log lines elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use stowage_registry::jobs::Stage;

/// How often the log is told.
const TELL: Duration = Duration::from_secs(10);

/// Shows the stages of a job.
pub(super) struct Progress {
    begun: Instant,
    on_terminal: bool,
    told: Mutex<Instant>,
}

impl Progress {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, on_terminal: stderr().is_terminal(), told: Mutex::new(now) }
    }

    pub(super) fn tell(&self, stage: &Stage) {
        if self.shown(|elapsed| bar(stage, elapsed)) {
            return;
        }
        if self.is_time() {
            let (done, total) = (stage.parts.done, stage.parts.total);
            tracing::info!(parts = done, of = total, objects = stage.objects, "comparing");
        }
    }

    /// So many of `total` bytes are where they should be.
    pub(super) fn tell_bytes(&self, done: u64, total: u64) {
        if self.shown(|elapsed| bytes_bar(done, total, elapsed)) {
            return;
        }
        if self.is_time() {
            tracing::info!(bytes = done, of = total, "copying");
        }
    }

    /// Shows a line on the terminal. `false`: there is none.
    fn shown(&self, line: impl Fn(Duration) -> String) -> bool {
        if self.on_terminal {
            // Nobody is left to be told that the terminal is gone.
            let _shown = write!(stderr().lock(), "\r{}\x1b[K", line(self.begun.elapsed()));
        }
        self.on_terminal
    }

    /// Whether the log is to be told again.
    fn is_time(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = told.elapsed() >= TELL;
        if is_time {
            *told = Instant::now();
        }
        is_time
    }

    /// Leaves the terminal to others.
    pub(super) fn end(&self) {
        if self.on_terminal {
            let _ended = writeln!(stderr().lock());
        }
    }
}

fn filled(done: u64, total: u64) -> String {
    const WIDTH: u64 = 30;
    let filled = (u128::from(done) * u128::from(WIDTH)).checked_div(u128::from(total)).unwrap_or_default();
    (0..WIDTH).map(|at| if u128::from(at) < filled { '#' } else { '.' }).collect()
}

fn bytes_bar(done: u64, total: u64, elapsed: Duration) -> String {
    const MIB: u64 = 1 << 20;
    let rate = done / MIB / elapsed.as_secs().max(1);
    format!("[{}] {}/{} MiB, {rate} MiB/s", filled(done, total), done / MIB, total.div_ceil(MIB))
}

fn bar(stage: &Stage, elapsed: Duration) -> String {
    let (done, total) = (stage.parts.done, stage.parts.total);
    let bar = filled(done, total);
    let rate = stage.objects / elapsed.as_secs().max(1);
    format!("[{bar}] {done}/{total} parts, {} objects, {rate}/s", stage.objects)
}

#[cfg(test)]
mod tests {
    use stowage_registry::meta::WalkProgress;

    use super::*;

    #[test]
    fn the_bar_shows_how_much_is_done_of_what_is_known() {
        let stage = Stage { parts: WalkProgress { done: 128, total: 256 }, objects: 5000 };
        let text = bar(&stage, Duration::from_secs(10));
        assert_eq!(text, "[###############...............] 128/256 parts, 5000 objects, 500/s");
        assert!(bar(&Stage::default(), Duration::ZERO).contains("0/0 parts"));
        let text = bytes_bar(10 << 20, 20 << 20, Duration::from_secs(2));
        assert_eq!(text, "[###############...............] 10/20 MiB, 5 MiB/s");
    }
}
