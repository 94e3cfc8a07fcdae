// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How far long work is: a bar on a terminal, a line of the log now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the log is told.
const TELL: Duration = Duration::from_secs(5);
/// How often a bar moves.
const MOVE: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

/// Work whose end is more or less known. What takes less than a second is not shown.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    terminal: bool,
    begun: Instant,
    told: Instant,
    shown: bool,
}

impl Progress {
    /// The work begins; `what` is what is counted.
    #[must_use]
    pub fn begin(what: &'static str) -> Self {
        let now = Instant::now();
        Self { what, terminal: std::io::stderr().is_terminal(), begun: now, told: now, shown: false }
    }

    /// So much is `done`, of about `total`.
    pub fn tell(&mut self, done: u64, total: u64) {
        let pause = if self.terminal { MOVE } else { TELL };
        if self.begun.elapsed() < Duration::from_secs(1) || self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        if self.terminal {
            self.shown = true;
            write(&format!("\r{} {}", bar(done, total), self.what));
        } else {
            tracing::info!(done, total, "{}", self.what);
        }
    }

    /// The work has ended: the bar makes room for what comes next.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            write("\r\x1b[2K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn write(text: &str) {
    let mut terminal = std::io::stderr().lock();
    // Nobody is left to be told that nobody sees it.
    let _seen = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

fn bar(done: u64, total: u64) -> String {
    let total = total.max(done).max(1);
    let filled = usize::try_from(u128::from(done) * WIDTH as u128 / u128::from(total)).unwrap_or(WIDTH);
    format!("[{}{}] {done}/{total}", "=".repeat(filled), " ".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_when_all_is_done_and_not_before() {
        assert!(bar(0, 0).contains("0/1") && !bar(0, 0).contains('='));
        assert_eq!(bar(5, 10).matches('=').count(), WIDTH / 2);
        assert_eq!(bar(9, 7).matches('=').count(), WIDTH, "more than was expected");
    }
}
