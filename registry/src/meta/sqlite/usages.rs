// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Usages`].

use async_trait::async_trait;
use stowage_oci::Digest;

use super::SqliteStore;
use super::values::{duration, from_json, parsed, to_json};
use crate::meta::{Error, RemoteUsage, Usages};

const REPORT: &str = include_str!("sql/report_usage.sql");
const REPORTS: &str =
    "SELECT remote, now - reported_at, digests, names FROM usage_reports, clock ORDER BY remote";

#[async_trait]
impl Usages for SqliteStore {
    async fn report_usage(
        &self,
        remote: &str,
        digests: &[Digest],
        references: &[String],
    ) -> Result<(), Error> {
        let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
        let report = sqlx::query(REPORT).bind(remote).bind(to_json(&digests)).bind(to_json(references));
        self.writer.run(report).await.map(drop)
    }

    async fn usage_reports(&self) -> Result<Vec<RemoteUsage>, Error> {
        let rows: Vec<(String, i64, String, String)> = self.readers.all(sqlx::query_as(REPORTS)).await?;
        let report = |(remote, age, digests, references): (String, i64, String, String)| {
            let digests: Vec<String> = from_json("usage_reports", &digests)?;
            let digests = digests.iter().map(|digest| parsed("usage_reports", digest));
            Ok(RemoteUsage {
                remote,
                // A clock that was set back.
                age: duration(age),
                digests: digests.collect::<Result<_, Error>>()?,
                references: from_json("usage_reports", &references)?,
            })
        };
        rows.into_iter().map(report).collect()
    }
}
