// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How the operator is operated: its clock, its tasks, its metrics and its probes.

pub mod clock;
pub mod metrics;
pub mod server;
pub mod tasks;
