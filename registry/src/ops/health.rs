// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether this process can serve, and what it depends on.
//!
//! Ready means: pulls are answered from either source. A lost database or a lost store alone is *degraded*, not
//! unready: otherwise an outage that every replica sees would take the Service its last endpoint.
//!
//! What answers is not asked again until a request to it fails (a *doubt*), so an idle process asks nobody. What does
//! not answer is asked until it does.

use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a probe may take before what it asks counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Opening what it needs.
    Starting,
    /// Serving.
    Serving,
    /// Finishing what runs.
    Draining,
}

/// What is known of a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not looked at yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// It answers, and is empty where it should not be: it must be restored or rebuilt.
    Empty,
}

/// What a dependency answers when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// That it is there.
    Good,
    /// That it is there, and empty where it should not be.
    Empty,
}

/// What the process depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// The bucket or folder.
    Storage,
    /// The database.
    Database,
}

impl Dependency {
    /// The name in checks and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Database => "database",
        }
    }
}

/// The health of one process. Shared by all of it.
#[derive(Debug, Default)]
pub struct Health {
    phase: AtomicU8,
    storage: AtomicU8,
    database: AtomicU8,
    storage_doubted: Notify,
    database_doubted: Notify,
}

impl Health {
    /// Starting, with nothing looked at yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the process is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Everything is open. Once draining, it stays so.
    pub fn serve(&self) {
        self.phase.fetch_max(1, Ordering::AcqRel);
    }

    /// The process is about to stop.
    pub fn drain(&self) {
        self.phase.fetch_max(2, Ordering::AcqRel);
    }

    /// What is known of the bucket or folder.
    #[must_use]
    pub fn storage(&self) -> State {
        self.state(Dependency::Storage)
    }

    /// What is known of the database.
    #[must_use]
    pub fn database(&self) -> State {
        self.state(Dependency::Database)
    }

    fn cell(&self, dependency: Dependency) -> &AtomicU8 {
        match dependency {
            Dependency::Storage => &self.storage,
            Dependency::Database => &self.database,
        }
    }

    /// What is known of a dependency.
    #[must_use]
    pub fn state(&self, dependency: Dependency) -> State {
        match self.cell(dependency).load(Ordering::Acquire) {
            0 => State::Unknown,
            1 => State::Up,
            2 => State::Down,
            _ => State::Empty,
        }
    }

    /// Notes whether a dependency answers. A change is logged, once.
    pub fn note<E: std::fmt::Display>(&self, dependency: Dependency, answer: &Result<Answer, E>) {
        let now = match answer {
            Ok(Answer::Good) => 1,
            Err(_) => 2,
            Ok(Answer::Empty) => 3,
        };
        let before = self.cell(dependency).swap(now, Ordering::AcqRel);
        match answer {
            Err(error) if before != 2 => {
                tracing::error!(dependency = dependency.name(), %error, "lost");
            }
            Ok(Answer::Good) if before == 2 => tracing::info!(dependency = dependency.name(), "back"),
            Ok(Answer::Good) if before == 3 => {
                tracing::info!(dependency = dependency.name(), "is empty no more");
            }
            _ => {}
        }
    }

    /// A request to a dependency failed: whoever watches it asks whether it still answers.
    pub fn doubt(&self, dependency: Dependency) {
        self.doubted(dependency).notify_one();
    }

    fn doubted(&self, dependency: Dependency) -> &Notify {
        match dependency {
            Dependency::Storage => &self.storage_doubted,
            Dependency::Database => &self.database_doubted,
        }
    }

    /// Whether requests should come here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let both_gone =
            self.storage() == State::Down && matches!(self.database(), State::Down | State::Empty);
        self.phase() == Phase::Serving && !both_gone
    }

    /// Asks a dependency until `stopping`: at once, then every `interval` while it does not answer, and while it does
    /// whenever there is a doubt, not sooner than that.
    pub async fn watch<F, E>(
        &self,
        dependency: Dependency,
        interval: Duration,
        ask: impl Fn() -> F + Send,
        stopping: CancellationToken,
    ) where
        F: Future<Output = Result<Answer, E>> + Send,
        E: std::fmt::Display,
    {
        loop {
            let asked = Instant::now();
            let answer = match tokio::time::timeout(PATIENCE, ask()).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            self.note(dependency, &answer);
            let next = async {
                if answer == Ok(Answer::Good) {
                    self.doubted(dependency).notified().await;
                }
                tokio::time::sleep_until(asked + interval).await;
            };
            if stopping.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Result<Answer, &str> = Err("gone");
    const THERE: Result<Answer, &str> = Ok(Answer::Good);

    #[test]
    fn one_lost_dependency_is_degraded_and_two_are_unready() {
        let health = Health::new();
        assert!(!health.is_ready());
        health.serve();
        assert!(health.is_ready());
        health.note(Dependency::Database, &GONE);
        assert!(health.is_ready() && health.database() == State::Down);
        health.note(Dependency::Storage, &GONE);
        assert!(!health.is_ready());
        health.note(Dependency::Storage, &THERE);
        assert!(health.is_ready() && health.storage() == State::Up);
        let empty: Result<Answer, &str> = Ok(Answer::Empty);
        health.note(Dependency::Database, &empty);
        assert!(health.is_ready() && health.database() == State::Empty, "pulls are answered from the bucket");
        health.note(Dependency::Storage, &GONE);
        assert!(!health.is_ready());
    }

    #[test]
    fn who_drains_is_never_ready_again() {
        let health = Health::new();
        health.serve();
        health.drain();
        health.serve();
        assert_eq!((health.phase(), health.is_ready()), (Phase::Draining, false));
    }

    #[tokio::test]
    async fn a_dependency_is_asked_at_least_once() {
        let health = Health::new();
        let stopping = CancellationToken::new();
        stopping.cancel();
        let ask = || std::future::ready(GONE);
        health.watch(Dependency::Storage, Duration::from_secs(5), ask, stopping).await;
        assert_eq!((health.storage(), health.database()), (State::Down, State::Unknown));
    }

    #[tokio::test]
    async fn l_31_what_answers_is_asked_again_only_upon_a_doubt_and_what_does_not_until_it_does() {
        const MOMENT: Duration = Duration::from_millis(1);
        let (health, stopping) = (Health::new(), CancellationToken::new());
        let (asked, fails) = (AtomicU8::new(0), AtomicU8::new(0));
        let ask = || {
            asked.fetch_add(1, Ordering::SeqCst);
            std::future::ready(if fails.load(Ordering::SeqCst) == 0 { THERE } else { GONE })
        };
        let until = async |count| {
            while asked.load(Ordering::SeqCst) < count {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let check = async {
            until(1).await;
            health.doubt(Dependency::Storage);
            tokio::time::sleep(20 * MOMENT).await;
            assert_eq!(asked.load(Ordering::SeqCst), 1, "another is doubted");
            health.doubt(Dependency::Database);
            until(2).await;
            tokio::time::sleep(20 * MOMENT).await;
            assert_eq!(asked.load(Ordering::SeqCst), 2, "one doubt is one question");
            fails.store(1, Ordering::SeqCst);
            health.doubt(Dependency::Database);
            until(6).await;
            assert_eq!(health.database(), State::Down);
            fails.store(0, Ordering::SeqCst);
            while health.database() == State::Down {
                tokio::time::sleep(MOMENT).await;
            }
            let count = asked.load(Ordering::SeqCst);
            tokio::time::sleep(20 * MOMENT).await;
            assert_eq!(asked.load(Ordering::SeqCst), count, "it is back");
            stopping.cancel();
        };
        tokio::join!(health.watch(Dependency::Database, MOMENT, ask, stopping.clone()), check);
    }
}
