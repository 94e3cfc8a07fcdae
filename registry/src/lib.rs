// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! An OCI registry: the binary `stowage-registry`, and a library for axum applications and tests.

pub mod archive;
pub mod auth;
pub mod blobs;
pub mod config;
pub mod domain;
mod embedded;
pub mod http;
pub mod jobs;
pub mod key;
pub mod labels;
pub mod meta;
pub mod operation;
pub mod ops;
pub mod outbox;
pub mod reports;
pub mod retention;
pub mod server;
pub mod signatures;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod upstream;
pub mod usage;

pub use embedded::{Builder, OpenError, Registry};

/// The routes of `registry`, to be merged into another axum application.
pub fn router(registry: &Registry) -> axum::Router {
    registry.router()
}
