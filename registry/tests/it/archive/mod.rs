// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Images that travel as files from one registry to another, which no network joins. The program is called as a human
//! calls it, over either pair of stores, beside a server or without one.

mod damage;
mod formats;
mod kill;
mod referrers;
mod rules;
mod site;
mod travel;
mod walk;

/// Stamps each named test, a function of two places, onto both pairs of stores.
macro_rules! both_places {
    ($($test:ident),* $(,)?) => {
        mod filesystem_and_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let [from, to] = [(), ()].map(|()| crate::purge::Place::embedded());
                super::$test(from, to).await;
            })*
        }

        mod s3_and_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let from = crate::purge::Place::clustered().await;
                super::$test(from, crate::purge::Place::clustered().await).await;
            })*
        }
    };
}
use both_places;
