// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mirrors that replicate: what runs copy from real registries, over either pair of stores, and by the program.

mod certificate;
pub(crate) mod command;
mod full;
mod immutable;
mod many;
mod moving;
mod pair;
mod runs;
mod scripted;
pub(crate) mod site;

/// Stamps each named test, a function of a fresh [`site::Site`], onto both pairs of stores.
macro_rules! both_stores {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::sync::site::Site::embedded().await).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::sync::site::Site::clustered().await).await;
            })*
        }
    };
}
pub(crate) use both_stores;
