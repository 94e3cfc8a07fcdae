// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The wire contract, through the router. Each test carries the ids that it proves, and runs over both stores.

mod blobs;
mod cache;
mod catalog;
mod costs;
mod delete;
mod errors;
mod headers;
mod immutable;
mod lookups;
mod manifests;
mod mount;
mod promotions;
mod ranges;
mod redirect;
mod referrers;
mod registry;
mod replicas;
mod reports;
mod rights;
mod routing;
mod sequences;
mod tags;
mod trash;
mod uploads;
mod usage;

/// Stamps each named test, a function of a fresh [`registry::Registry`], onto both stores.
macro_rules! both_stores {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::wire::registry::Registry::embedded().await).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::wire::registry::Registry::clustered().await).await;
            })*
        }
    };
}
use both_stores;
