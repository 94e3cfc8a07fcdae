// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A virtual repository over repositories of ours and mirrors of two real registries, by two replicas over either pair
//! of stores. What mirrors ask for is counted.

mod lists;
mod process;
mod pull;
mod push;
mod rights;
mod site;

/// Stamps each named test, a function of a fresh [`site::Site`], onto both pairs of stores.
macro_rules! both_stores {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::virtuals::site::Site::embedded().await).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::virtuals::site::Site::clustered().await).await;
            })*
        }
    };
}
use both_stores;
