// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The admin port: what other clusters run.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use stowage_registry::auth::Subject;
use stowage_registry::http::Settings;
use stowage_registry::usage::Remote;

use super::registry::{Answer, Registry, sha256};
use super::rights::{As as _, access};

super::both_stores!(
    n4_a_cluster_is_reported_by_its_reporter_and_by_nobody_else,
    what_is_no_report_is_refused_and_the_last_one_stays,
);

async fn administered(registry: Registry) -> Registry {
    let remote =
        |name: &str, reporter| Remote { name: name.to_owned(), reporter, max_age: Duration::from_hours(1) };
    let reporters = vec![
        remote("edge-1", Subject::User("bob".to_owned())),
        remote("edge-2", Subject::User("alice".to_owned())),
    ];
    let registry = registry.reopened(stowage_registry::Registry::builder().access(access())).await;
    registry.opened.apply(Settings { reporters, ..Settings::default() }, Vec::new());
    registry
}

async fn report(registry: &Registry, cluster: &str, user: &str, body: String) -> Answer {
    let target = format!("/admin/v1/usage/{cluster}");
    registry.administer(Method::PUT, &target).user(user).body(body).send().await
}

fn running(references: &[&str]) -> Value {
    json!({ "digests": [sha256(b"image")], "references": references })
}

async fn known(registry: &Registry) -> Vec<(String, Vec<String>)> {
    let reports = registry.meta.usage_reports().await.unwrap();
    reports.into_iter().map(|report| (report.remote, report.references)).collect()
}

async fn n4_a_cluster_is_reported_by_its_reporter_and_by_nobody_else(registry: Registry) {
    let registry = administered(registry).await;
    let body = running(&["team/app:1"]).to_string();
    for (cluster, user) in [("edge-1", "alice"), ("edge-2", "bob"), ("edge-3", "bob"), ("edge-3", "alice")] {
        let refused = report(&registry, cluster, user, body.clone()).await;
        assert_eq!(refused.refusal(), (403, "DENIED".to_owned()), "{cluster} by {user}");
    }
    let nobody = registry.administer(Method::PUT, "/admin/v1/usage/edge-1").body(body.clone()).send().await;
    assert_eq!(nobody.status, 401);
    assert_eq!(known(&registry).await, []);

    let taken = report(&registry, "edge-1", "bob", body).await;
    assert_eq!((taken.status, taken.json()), (200, json!({ "digests": 1, "references": 1 })));
    assert_eq!(report(&registry, "edge-2", "alice", "{}".to_owned()).await.status, 200);
    assert_eq!(report(&registry, "edge-1", "bob", running(&["a:1", "b:2"]).to_string()).await.status, 200);
    let expected = [("edge-1", vec!["a:1", "b:2"]), ("edge-2", vec![])];
    let expected =
        expected.map(|(name, all)| (name.to_owned(), all.into_iter().map(str::to_owned).collect()));
    assert_eq!(known(&registry).await, expected);
}

async fn what_is_no_report_is_refused_and_the_last_one_stays(registry: Registry) {
    let registry = administered(registry).await;
    assert_eq!(report(&registry, "edge-1", "bob", running(&["a:1"]).to_string()).await.status, 200);
    for body in [
        String::new(),
        "\"text\"".to_owned(),
        json!({ "digests": ["sha256:short"] }).to_string(),
        json!({ "references": [""] }).to_string(),
        json!({ "references": ["x".repeat(1025)] }).to_string(),
        json!({ "images": [] }).to_string(),
        json!({ "references": ["x".repeat(950_000)] }).to_string(),
    ] {
        let refused = report(&registry, "edge-1", "bob", body).await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    assert_eq!(known(&registry).await, [("edge-1".to_owned(), vec!["a:1".to_owned()])]);
}
