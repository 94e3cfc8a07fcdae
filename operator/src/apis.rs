// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which optional APIs the cluster has: the Gateway API and that of the Prometheus operator.
//!
//! Guarantees: looked up at start and every minute, so that an API that is installed later is used without a restart.
//! An answer that did not come changes nothing: what is unknown stays as it was.

use std::{collections::BTreeSet, time::Duration};

use kube::Client;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::objects::OptionalApi;

/// The APIs that exist.
pub type Apis = BTreeSet<OptionalApi>;

const PERIOD: Duration = Duration::from_mins(1);

/// Looks once. `known` is what the answer falls back to.
pub async fn discover(client: &Client, known: &Apis) -> Apis {
    let mut found = Apis::new();
    for api in OptionalApi::ALL {
        if exists(client, api).await.unwrap_or_else(|| known.contains(&api)) {
            found.insert(api);
        }
    }
    found
}

/// Looks for ever and tells who listens.
pub async fn keep_looking(client: Client, sender: watch::Sender<Apis>) {
    loop {
        sleep(PERIOD).await;
        let known = sender.borrow().clone();
        let found = discover(&client, &known).await;
        sender.send_if_modified(|apis| {
            let changed = *apis != found;
            if changed {
                info!(apis = ?found, "optional APIs changed");
                *apis = found;
            }
            changed
        });
    }
}

async fn exists(client: &Client, api: OptionalApi) -> Option<bool> {
    let (group, version) = api.group_version();
    match client.list_api_group_resources(&format!("{group}/{version}")).await {
        Ok(resources) => Some(!resources.resources.is_empty()),
        Err(kube::Error::Api(status)) if status.code == 404 => Some(false),
        Err(error) => {
            warn!(api = api.as_str(), %error, "optional API could not be looked up");
            None
        }
    }
}
