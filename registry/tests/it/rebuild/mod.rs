// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A database is thrown away, restored, or cut in the middle; the bucket makes it right.
//!
//! Over both back ends: PostgreSQL with a real S3 server, SQLite with a folder.

/// Stamps claims on both back ends.
macro_rules! on_both {
    ($($claim:ident),* $(,)?) => {
        mod postgres_and_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$claim(crate::rebuild::stand::Stand::postgres().await).await;
            })*
        }
        mod sqlite_and_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$claim(crate::rebuild::stand::Stand::sqlite()).await;
            })*
        }
    };
}

pub(crate) mod api;
mod breaker;
mod command;
mod degraded;
pub(crate) mod equality;
mod lossy;
mod races;
mod speed;
pub(crate) mod stand;
mod walk;
