// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Retention, from a policy to what is left. Over real databases and buckets.

mod command;
mod numbers;
mod runs;
pub(crate) mod site;
mod worlds;

/// Stamps each named test, a function of a fresh [`crate::gc::site::Site`], onto both pairs of stores.
macro_rules! both_sites {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::gc::site::Site::embedded().await).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::gc::site::Site::clustered().await).await;
            })*
        }
    };
}
use both_sites;
