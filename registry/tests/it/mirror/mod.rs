// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulls through a mirror of a real registry, by two replicas over either pair of stores; what they ask for is counted.

mod blobs;
mod line;
mod names;
mod process;
mod site;
mod tags;

/// Stamps each named test, a function of a fresh [`site::Site`], onto both pairs of stores.
macro_rules! both_stores {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::mirror::site::Site::embedded().await).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::mirror::site::Site::clustered().await).await;
            })*
        }
    };
}
use both_stores;
