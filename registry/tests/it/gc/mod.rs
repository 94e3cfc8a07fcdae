// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Collection, from the push to the empty bucket. Over real databases and buckets; graces are milliseconds.

mod command;
mod cost;
mod end;
mod faults;
mod lessons;
pub(crate) mod site;

/// Stamps each named test, a function of a fresh [`site::Site`], onto both pairs of stores.
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
