// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The admin port: what runs have told.

use std::sync::Arc;

use http::Method;
use serde_json::Value;
use stowage_registry::jobs::{Retainer, RetentionRun};
use stowage_registry::ops::metrics::RetentionMetrics;

use super::registry::Registry;
use super::rights::{As as _, access};
use crate::retention::site::{keeps, policy, settings};

super::both_stores!(p13_what_a_policy_decided_is_read_tag_by_tag, a_report_that_is_not_there_is_404);

async fn administered(registry: Registry) -> Registry {
    registry.reopened(stowage_registry::Registry::builder().access(access())).await
}

async fn p13_what_a_policy_decided_is_read_tag_by_tag(registry: Registry) {
    for tag in ["v1", "v2"] {
        registry.push_image("team/a", tag).await;
    }
    let retainer =
        Retainer::new(Arc::clone(&registry.meta), Arc::clone(&registry.store), RetentionMetrics::default());
    let settings = settings(vec![policy("team-a", "team/**", vec![keeps(&["v1"])])]);
    retainer.run(&settings, "team-a", None, RetentionRun::Act, &mut |_| {}).await.unwrap();
    let registry = administered(registry).await;
    let target = "/admin/v1/retention/team-a/report";
    for (user, status) in [("alice", 403), ("bob", 200)] {
        assert_eq!(registry.administer(Method::GET, target).user(user).start().await.status(), status);
    }
    let answer = registry.administer(Method::GET, target).user("bob").start().await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let lines: Vec<Value> = String::from_utf8(body.to_vec())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["summary"]["command"], "retention", "{lines:?}");
    let reason = |tag: &str| {
        let line = lines.iter().find(|line| line["tag"] == tag).unwrap();
        line["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!((reason("v1").as_str(), reason("v2").as_str()), ("KeptBy team-a/kept", "NoRuleKeeps"));
}

async fn a_report_that_is_not_there_is_404(registry: Registry) {
    let registry = administered(registry).await;
    for (policy, status) in [("nobody", 404), ("No-Policy", 400)] {
        let target = format!("/admin/v1/retention/{policy}/report");
        assert_eq!(registry.administer(Method::GET, &target).user("bob").send().await.status, status);
    }
}
