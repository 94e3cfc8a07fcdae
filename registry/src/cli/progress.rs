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
        if self.on_terminal {
            // Nobody is left to be told that the terminal is gone.
            let _shown = write!(stderr().lock(), "\r{}\x1b[K", bar(stage, self.begun.elapsed()));
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= TELL {
            *told = Instant::now();
            let (done, total) = (stage.parts.done, stage.parts.total);
            tracing::info!(parts = done, of = total, objects = stage.objects, "comparing");
        }
    }

    /// Leaves the terminal to others.
    pub(super) fn end(&self) {
        if self.on_terminal {
            let _ended = writeln!(stderr().lock());
        }
    }
}

fn bar(stage: &Stage, elapsed: Duration) -> String {
    const WIDTH: u64 = 30;
    let (done, total) = (stage.parts.done, stage.parts.total);
    let filled = (done * WIDTH).checked_div(total).unwrap_or_default();
    let bar: String = (0..WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
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
    }
}
