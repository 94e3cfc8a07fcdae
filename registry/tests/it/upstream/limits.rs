// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How often we may ask, and how often at once.

use std::time::Duration;

use stowage_oci::Reference;
use stowage_registry::upstream::{Budget, Kind, Span, Upstream};

use super::content::layer;
use super::servers::{Scripted, answer, challenge, distribution, impatient, push, settings};

const LIMITS: &str = "RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 76;w=21600\r\n";

fn reference() -> Reference {
    Reference::Tag("1".parse().unwrap())
}

#[tokio::test]
async fn f38b_p18_what_is_left_of_a_limit_is_told_with_each_answer() {
    let server = Scripted::answering(|asked| {
        let fields = format!("{LIMITS}Content-Type: application/vnd.oci.image.index.v1+json\r\n");
        let body =
            if asked.line().starts_with("HEAD") { "" } else { r#"{"schemaVersion":2,"manifests":[]}"# };
        if asked.line().contains("/2") { answer(404, &fields, "") } else { answer(200, &fields, body) }
    });
    let upstream = Upstream::new(settings(&server.origin()));
    let window = Some(Duration::from_hours(6));
    let budget = Budget { limit: Some(100), remaining: Some(76), window, retry_after: None };
    let app = "app".parse().unwrap();
    assert_eq!(upstream.manifest(&app, &reference()).await.unwrap().budget, budget);
    assert_eq!(upstream.manifest_head(&app, &reference()).await.unwrap().budget, budget);
    let missing = Reference::Tag("2".parse().unwrap());
    assert_eq!(*upstream.manifest_head(&app, &missing).await.unwrap_err().budget, budget);
}

#[tokio::test]
async fn p18_a_limit_that_is_met_says_when_to_ask_again() {
    let later = Some(Duration::from_mins(2));
    for (status, kind) in
        [(429, Kind::RateLimited { retry_after: later }), (503, Kind::Unavailable { retry_after: later })]
    {
        let fields = format!("Retry-After: 120\r\n{LIMITS}");
        let server = Scripted::answering(move |_| answer(status, &fields, ""));
        let upstream = Upstream::new(settings(&server.origin()));
        let error = upstream.manifest_head(&"app".parse().unwrap(), &reference()).await.unwrap_err();
        assert_eq!((error.kind, error.budget.remaining), (kind, Some(76)), "{error}");
        assert!(error.is_passing());
        assert_eq!(server.asked().len(), 1, "asked again at once");
    }
}

#[tokio::test]
async fn p18_a_token_endpoint_has_limits_too() {
    let server = Scripted::answering(|asked| {
        if asked.line().starts_with("GET /token") {
            return answer(429, "Retry-After: 60\r\n", "");
        }
        challenge(&format!("http://{}/token", asked.field("host").unwrap()), "repository:app:pull")
    });
    let upstream = Upstream::new(settings(&server.origin()));
    let error = upstream.manifest(&"app".parse().unwrap(), &reference()).await.unwrap_err();
    assert_eq!(error.kind, Kind::RateLimited { retry_after: Some(Duration::from_mins(1)) }, "{error}");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_may_be() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    let image = push(server.address(), "", "app", "1", &layer());
    let mut settings = impatient(&server.origin());
    settings.max_concurrent = 2;
    let upstream = Upstream::new(settings);
    let app = "app".parse().unwrap();
    let blob = || upstream.blob(&app, &image.layer_digest, Span::default());
    let (one, two) = (blob().await.unwrap(), blob().await.unwrap());
    let error = upstream.manifest(&app, &reference()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable { retry_after: None });
    assert!(error.to_string().contains("all 2 requests"), "{error}");
    drop(one);
    upstream.manifest(&app, &reference()).await.unwrap();
    upstream.manifest_head(&app, &reference()).await.unwrap();
    drop(two);
}
