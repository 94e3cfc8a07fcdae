// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the registry of this release can do when the operator asks it to.
//!
//! The operator renders nothing that would fail, so a command has its line here before it has an object.

/// `stowage-registry gc` exists: a `CronJob` runs it.
pub const COLLECTS: bool = false;

/// The version of the operator, which the registry shares.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
