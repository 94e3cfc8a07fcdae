// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reconciles the custom resources of stowage.dev.
//!
//! The operator is needed for change only: replicas serve on without it. It never reads a Secret and never opens the
//! database or the bucket.

pub mod apis;
pub mod apply;
pub mod cli;
pub mod context;
pub mod controllers;
pub mod events;
pub mod image;
pub mod keys;
pub mod lease;
pub mod names;
pub mod objects;
pub mod ops;
pub mod policy;
pub mod release;
pub mod render;
pub mod reports;
pub mod serve;
