// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions, over both back ends: PostgreSQL with a real S3 server, SQLite with a folder.

mod automatic;
mod command;
mod copies;
mod evidence;
mod ledger;
mod mirrored;
mod speed;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use stowage_oci::{Digest, TagSelection};
use stowage_registry::domain::{
    Gate, Promotion, PromotionMode, PromotionRequest, PromotionRule, Trigger, Wanted,
};
use stowage_registry::ops::tasks::Tasks;

use crate::rebuild::stand::{Replica, Stand};

async fn ready(stand: &Stand) -> Replica {
    let replica = stand.start().await;
    replica.walked().await;
    replica
}

/// From `staging/**` to `prod/{path}`, with these gates.
fn rule(gates: Vec<Gate>) -> PromotionRule {
    PromotionRule {
        name: "to-prod".to_owned(),
        generation: Some(1),
        hash: "sha256:0".to_owned(),
        spec: json!({"to": {"repository": "prod/{path}"}}),
        from: vec!["staging/**".parse().unwrap()],
        tags: TagSelection::default(),
        to: "prod/{path}".parse().unwrap(),
        to_tag: "{tag}".parse().unwrap(),
        gates,
        overwrites: false,
        with_referrers: true,
        deadline: Duration::from_hours(1),
        trigger: Trigger::Request,
    }
}

fn gate(name: &str, wants: Wanted) -> Gate {
    Gate { name: name.to_owned(), wants }
}

fn labels(pairs: &[(&str, &str)]) -> Wanted {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Wanted::Labels(pairs.collect::<BTreeMap<_, _>>())
}

fn request(tag: &str) -> PromotionRequest {
    PromotionRequest {
        id: Some("x".to_owned()),
        repository: "staging/app".parse().unwrap(),
        tag: Some(tag.parse().unwrap()),
        digest: None,
        pinned: None,
        requested_by: Some("carol".to_owned()),
        actor: "test".to_owned(),
        approvals: Vec::new(),
        reason: None,
    }
}

fn of_digest(digest: Digest, tag: &str) -> PromotionRequest {
    PromotionRequest { digest: Some(digest), ..request(tag) }
}

async fn promote(replica: &Replica, rule: &PromotionRule, request: &PromotionRequest) -> Promotion {
    replica.registry.domain().promote(rule, request, PromotionMode::Promote).await.unwrap()
}

/// A served replica's address.
async fn listening(replica: &Replica) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = replica.registry.router();
    // It ends with the runtime of the test.
    drop(Tasks::new().spawn(async move { axum::serve(listener, router).await }));
    address
}
