// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a registry is worth when its parts fail: replicas that die, a bucket and a database that fail in every
//! way and at every step, full disks, crowds.
//!
//! Over real connections, a real database and a real bucket. A replica has a runtime of its own, so that it can
//! be ended in the middle of anything.

mod bucket;
pub(crate) mod client;
mod cluster;
mod crashes;
mod crowds;
mod database;
mod line;
mod power;
mod process;
