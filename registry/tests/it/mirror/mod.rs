// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulls through a mirror of a real registry, by two replicas over either pair of stores; what they ask for is counted.
//! What a client sees of tags and blobs is the same where the mirror is a member of a virtual repository.

pub(crate) mod blobs;
mod certificate;
mod five;
mod full;
mod immutable;
mod limits;
pub(crate) mod line;
mod load;
mod moving;
mod names;
mod process;
mod referrers;
pub(crate) mod site;
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
pub(crate) use both_stores;

/// Stamps each named test, likewise, on a site where every name leads through a virtual repository.
macro_rules! through_a_virtual_repository {
    ($($test:ident),* $(,)?) => {
        mod through_a_virtual_repository {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::mirror::site::Site::embedded().await.behind_a_virtual_repository()).await;
            })*
        }
    };
}
pub(crate) use through_a_virtual_repository;
