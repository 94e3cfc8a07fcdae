// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every room needs to run: the clock, gates for tests, tasks that shutdown knows, health, metrics, the log, traces,
//! signals.

pub mod clock;
pub mod gate;
pub mod health;
pub mod metrics;
pub mod permits;
pub mod progress;
pub mod run_requests;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod traces;
