// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was deleted and is kept for a while: `trash list` and `trash restore`.

use clap::{Args, Subcommand};
use serde_json::json;
use stowage_oci::{Name, Reference};
use stowage_registry::config::{self, Config};
use stowage_registry::domain::Restored;
use stowage_registry::meta::{TrashItem, Trashed};
use stowage_registry::operation::Action;

use super::open;
use super::{Common, Failure, Output, print, runtime};

/// Entries that are asked for at once.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Trash {
    /// Print what was deleted and can be restored, and until when
    List(List),
    /// Bring a deleted tag or manifest back
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
    /// Of this repository only
    #[arg(long, value_name = "NAME", env = "STOWAGE_REPOSITORY")]
    repository: Option<Name>,
    /// Form of the result
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    common: Common,
    /// What to restore, as `team/app:1.0` or `team/app@sha256:…`
    #[arg(value_name = "REF")]
    reference: TrashItem,
    /// With deleted signatures, SBOMs and whatever else refers to it
    #[arg(long, env = "STOWAGE_REFERRERS")]
    referrers: bool,
    /// Form of the result
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

impl Trash {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::List(asked) => asked.run(),
            Self::Restore(asked) => asked.run(),
        }
    }
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let config = config::load(&self.common.sources(None))?;
        runtime()?.block_on(self.list(&config))
    }

    async fn list(&self, config: &Config) -> Result<(), Failure> {
        let beside = open::beside(config, &self.common.data_dir).await?;
        let listed = async {
            beside.compared().await?;
            let mut after: Option<TrashItem> = None;
            loop {
                let page = beside.registry.domain().trash(self.repository.as_ref(), after.as_ref(), PAGE);
                let page = page.await.map_err(Failure::Trash)?;
                let lines: Vec<String> = page.iter().map(|found| line(found, self.output)).collect();
                print(lines.concat().as_bytes())?;
                match page.into_iter().next_back() {
                    Some(last) => after = Some(last.item),
                    None => return Ok(()),
                }
            }
        }
        .await;
        beside.close().await;
        listed
    }
}

impl Restore {
    fn run(&self) -> Result<(), Failure> {
        let config = config::load(&self.common.sources(None))?;
        if let Some(why) = config.mode.refuses(Action::Push) {
            return Err(Failure::Forbidden(why));
        }
        let Restored { digest, restored } = runtime()?.block_on(self.restore(&config))?;
        let text = match self.output {
            Output::Text => format!("{} is {digest} again\n", self.reference),
            Output::Json => format!("{}\n", json!({ "digest": digest, "restored": restored })),
        };
        print(text.as_bytes())
    }

    async fn restore(&self, config: &Config) -> Result<Restored, Failure> {
        let beside = open::beside(config, &self.common.data_dir).await?;
        let restored = beside.registry.domain().restore(&self.reference, self.referrers).await;
        beside.close().await;
        restored.map_err(|source| Failure::NotRestored { item: self.reference.to_string(), source })
    }
}

fn line(found: &Trashed, output: Output) -> String {
    let Trashed { item: TrashItem { repository, reference }, digest, media_type, size, .. } = found;
    let until = found.kept_until();
    match output {
        Output::Text => format!("{} {digest} until {until}\n", found.item),
        Output::Json => {
            let tag = match reference {
                Reference::Tag(tag) => Some(tag),
                Reference::Digest(_) => None,
            };
            let entry = json!({
                "repository": repository,
                "tag": tag,
                "digest": digest,
                "mediaType": media_type,
                "size": size,
                "restorableUntil": until.to_string(),
            });
            format!("{entry}\n")
        }
    }
}
