// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How promotions have ended: `promotions list`.

use clap::{Args, Subcommand};
use stowage_oci::{Digest, Name};
use stowage_registry::config::{self, Config};
use stowage_registry::meta::{LedgerEntry, LedgerFilter, LedgerPlace};

use super::{Common, Failure, Output, open, print, runtime};

/// Entries that are asked for at once.
const PAGE: u32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum Promotions {
    /// Print how promotions have ended, the newest first
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
    /// From or to this repository only
    #[arg(long, value_name = "NAME", env = "STOWAGE_REPOSITORY")]
    repository: Option<Name>,
    /// By this promotion policy only
    #[arg(long, value_name = "NAME", env = "STOWAGE_POLICY")]
    policy: Option<String>,
    /// Of this artifact only
    #[arg(long, value_name = "DIGEST", env = "STOWAGE_DIGEST")]
    digest: Option<Digest>,
    /// Form of the result
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

impl Promotions {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let Self::List(asked) = self;
        let config = config::load(&asked.common.sources(None))?;
        runtime()?.block_on(asked.list(&config))
    }
}

impl List {
    async fn list(&self, config: &Config) -> Result<(), Failure> {
        let beside = open::beside(config, &self.common.data_dir).await?;
        let filter = LedgerFilter {
            repository: self.repository.clone(),
            policy: self.policy.clone(),
            digest: self.digest,
        };
        let listed = async {
            beside.compared().await?;
            let mut after = LedgerPlace::START;
            loop {
                let page = beside.registry.domain().ledger(&filter, after, PAGE, |_| true).await;
                let page = page.map_err(Failure::Ledger)?;
                let lines: Vec<String> = page.entries.iter().map(|entry| line(entry, self.output)).collect();
                print(lines.concat().as_bytes())?;
                match page.next {
                    Some(next) => after = next,
                    None => return Ok(()),
                }
            }
        }
        .await;
        beside.close().await;
        listed
    }
}

fn line(entry: &LedgerEntry, output: Output) -> String {
    match output {
        Output::Text => {
            let LedgerEntry { outcome, record, .. } = entry;
            let source = record.source.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
            format!(
                "{} {outcome} {}{source} to {}:{} {} by {}\n",
                record.at,
                record.source.repository,
                record.target.repository,
                record.target.tag,
                record.digest,
                record.policy.name
            )
        }
        Output::Json => {
            let entry = serde_json::to_string(entry).expect("maps have text keys");
            format!("{entry}\n")
        }
    }
}
