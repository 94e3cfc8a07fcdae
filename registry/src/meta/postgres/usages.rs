// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Usages`].

use async_trait::async_trait;
use stowage_oci::Digest;

use super::tx::read;
use super::{PostgresStore, row};
use crate::meta::{Error, RemoteUsage, Usages};

type Columns = (String, f64, Vec<Vec<u8>>, Vec<String>);

#[async_trait]
impl Usages for PostgresStore {
    async fn report_usage(
        &self,
        remote: &str,
        digests: &[Digest],
        references: &[String],
    ) -> Result<(), Error> {
        self.run(|| {
            sqlx::query(include_str!("sql/report_usage.sql"))
                .bind(remote)
                .bind(row::digests(digests))
                .bind(references)
        })
        .await
    }

    async fn usage_reports(&self) -> Result<Vec<RemoteUsage>, Error> {
        let rows: Vec<Columns> =
            read(self.rows(sqlx::query_as(include_str!("sql/usage_reports.sql")))).await?;
        let report = |(remote, age, digests, references): Columns| {
            let digests = digests.iter().map(|digest| row::digest("usage_reports", digest));
            Ok(RemoteUsage {
                remote,
                age: row::duration(age),
                digests: digests.collect::<Result<_, Error>>()?,
                references,
            })
        };
        rows.into_iter().map(report).collect()
    }
}
