// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The admin port: promotion by request, and the ledger.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use stowage_oci::TagSelection;
use stowage_registry::domain::{Gate, PromotionRule, Trigger, Wanted};

use super::registry::{Answer, Registry, sha256};
use super::rights::{As as _, access, token};

super::both_stores!(
    n5_who_may_promote_does_so_in_their_own_name,
    n5_what_is_not_promoted_is_told_with_the_reason,
    n5_who_may_not_read_the_source_or_promote_to_the_target_promotes_nothing,
    n5_the_ledger_is_told_newest_first_in_pages_by_what_is_asked_for,
    n5_of_the_ledger_everybody_sees_what_they_may_pull,
    what_is_no_question_to_the_ledger_is_refused,
);

fn rule(name: &str, trigger: Trigger, gates: Vec<Gate>) -> PromotionRule {
    PromotionRule {
        name: name.to_owned(),
        generation: None,
        hash: "sha256:0".to_owned(),
        spec: json!({}),
        from: vec!["team/**".parse().unwrap()],
        tags: TagSelection::default(),
        to: "prod/{path}".parse().unwrap(),
        to_tag: "{tag}".parse().unwrap(),
        gates,
        overwrites: false,
        with_referrers: true,
        deadline: Duration::from_hours(1),
        trigger,
    }
}

/// `team/app:v1` can be promoted.
async fn ready(registry: Registry) -> Registry {
    registry.push_image("team/app", "v1").await;
    let registry = registry.reopened(stowage_registry::Registry::builder().access(access())).await;
    let approved = Gate { name: "approved".to_owned(), wants: Wanted::Approval { required: 1 } };
    let rules = vec![
        rule("to-prod", Trigger::Request, Vec::new()),
        rule("approved", Trigger::Request, vec![approved]),
        rule("resting", Trigger::Nobody, Vec::new()),
    ];
    registry.opened.domain().set_promotions(rules);
    registry
}

async fn promote(registry: &Registry, user: &str, request: Value) -> Answer {
    let ask = registry.administer(Method::POST, "/admin/v1/promotions").user(user);
    ask.body(request.to_string()).send().await
}

fn asked(policy: &str) -> Value {
    json!({ "policy": policy, "repository": "team/app", "tag": "v1", "reason": "CHG-1" })
}

async fn is_there(registry: &Registry) -> bool {
    registry.get("/v2/prod/app/manifests/v1").user("bob").send().await.status == 200
}

async fn n5_who_may_promote_does_so_in_their_own_name(registry: Registry) {
    let registry = ready(registry).await;
    let mut dry = asked("to-prod");
    dry["dryRun"] = true.into();
    let answer = promote(&registry, "bob", dry).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("AllPassed")));
    assert!(!is_there(&registry).await);
    let answer = promote(&registry, "bob", asked("to-prod")).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("Promoted")), "{answer:?}");
    let told = answer.json();
    assert_eq!(told["target"], json!({ "repository": "prod/app", "tag": "v1" }));
    assert!(is_there(&registry).await);
    let digest = told["digest"].as_str().unwrap().parse().unwrap();
    let entries = registry.meta.promotions_into(&"prod/app".parse().unwrap(), &digest, 1).await.unwrap();
    let record = &entries[0].record;
    assert_eq!((record.requested_by.as_deref(), record.reason.as_deref()), (Some("bob"), Some("CHG-1")));
    let again = promote(&registry, "bob", asked("to-prod")).await;
    assert_eq!((again.status, &again.json()["result"]), (200, &json!("AlreadyPromoted")));
}

async fn n5_what_is_not_promoted_is_told_with_the_reason(registry: Registry) {
    let registry = ready(registry).await;
    let answer = promote(&registry, "bob", asked("approved")).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("WaitingForGates")));
    assert_eq!(answer.json()["gates"][0]["reason"], "ApprovalsMissing", "nobody can approve it here");
    let mut absent = asked("to-prod");
    absent["tag"] = "v2".into();
    let answer = promote(&registry, "bob", absent).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("ArtifactNotFound")));
    assert_eq!(promote(&registry, "bob", asked("resting")).await.status, 405);
    let unknown = promote(&registry, "bob", asked("gone")).await;
    assert!(
        unknown.status == 400 && unknown.json().to_string().contains("no PromotionPolicy"),
        "{unknown:?}"
    );
    let nothing = promote(&registry, "bob", json!({ "policy": "to-prod", "repository": "team/app" })).await;
    assert!(
        nothing.status == 400 && nothing.json().to_string().contains("one of tag and digest"),
        "{nothing:?}"
    );
    let mistaken = promote(&registry, "bob", json!({ "policy": "to-prod", "repositry": "team/app" })).await;
    assert!(mistaken.status == 400 && mistaken.json().to_string().contains("repositry"), "{mistaken:?}");
    assert!(!is_there(&registry).await);
}

async fn n5_who_may_not_read_the_source_or_promote_to_the_target_promotes_nothing(registry: Registry) {
    let registry = ready(registry).await;
    let pusher = promote(&registry, "alice", asked("to-prod")).await;
    assert_eq!(pusher.refusal(), (403, "DENIED".to_owned()), "who may push to the source");
    let mut elsewhere = asked("gone");
    elsewhere["repository"] = "other/app".into();
    let stranger = promote(&registry, "alice", elsewhere).await;
    assert_eq!(stranger.refusal(), (403, "DENIED".to_owned()), "nor is told which policies there are");
    let nobody = registry.administer(Method::POST, "/admin/v1/promotions").body(asked("to-prod").to_string());
    assert_eq!(nobody.send().await.status, 401);
    assert!(!is_there(&registry).await);
}

/// What the ledger tells, as `result source -> target`, page by page.
async fn ledger(registry: &Registry, user: &str, query: &str) -> Vec<String> {
    let (mut told, mut last) = (Vec::new(), String::new());
    loop {
        let target = format!("/admin/v1/promotions?{query}{last}");
        let answer = registry.administer(Method::GET, &target).user(user).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for entry in page["items"].as_array().unwrap() {
            let [from, to] = ["source", "target"].map(|end| text(&entry[end]["repository"]));
            told.push(format!("{} {from} -> {to}", text(&entry["result"])));
        }
        let Some(next) = page["next"].as_str() else { return told };
        last = format!("&last={next}");
    }
}

/// `team/app:v1` was promoted to `prod/app` and to `team/live`, and could not be to `prod/app` again.
async fn promoted(registry: Registry) -> Registry {
    let registry = ready(registry).await;
    let live =
        PromotionRule { to: "team/live".parse().unwrap(), ..rule("live", Trigger::Request, Vec::new()) };
    let labels = Wanted::Labels([("vendor".to_owned(), "acme".to_owned())].into());
    let vendor = Gate { name: "vendor".to_owned(), wants: labels };
    let rules = vec![
        rule("to-prod", Trigger::Request, Vec::new()),
        live,
        rule("vendor", Trigger::Request, vec![vendor]),
    ];
    registry.opened.domain().set_promotions(rules);
    for (policy, result) in [("to-prod", "Promoted"), ("live", "Promoted"), ("vendor", "GateFailed")] {
        assert_eq!(promote(&registry, "bob", asked(policy)).await.json()["result"], result);
    }
    registry
}

async fn n5_the_ledger_is_told_newest_first_in_pages_by_what_is_asked_for(registry: Registry) {
    let registry = promoted(registry).await;
    let [failed, live, prod] = [
        "GateFailed team/app -> prod/app",
        "Promoted team/app -> team/live",
        "Promoted team/app -> prod/app",
    ];
    for n in ["", "n=1", "n=2"] {
        assert_eq!(ledger(&registry, "bob", n).await, [failed, live, prod], "{n}");
    }
    assert_eq!(ledger(&registry, "bob", "repository=team/app").await, [failed, live, prod]);
    assert_eq!(ledger(&registry, "bob", "repository=prod/app").await, [failed, prod]);
    assert_eq!(ledger(&registry, "bob", "policy=to-prod&repository=prod/app&n=1").await, [prod]);
    assert!(ledger(&registry, "bob", "policy=gone").await.is_empty());
    let image = registry.head("/v2/team/app/manifests/v1").user("bob").send().await;
    let digest = image.header("docker-content-digest").to_owned();
    assert_eq!(ledger(&registry, "bob", &format!("digest={digest}&policy=live")).await, [live]);
    assert!(ledger(&registry, "bob", &format!("digest={}", sha256(b"other"))).await.is_empty());
    let one = registry.administer(Method::GET, "/admin/v1/promotions?policy=vendor").user("bob").send().await;
    let entry = &one.json()["items"][0];
    assert_eq!((&entry["digest"], &entry["requestedBy"]), (&json!(digest), &json!("bob")));
    assert_eq!((&entry["reason"], &entry["policy"]["name"]), (&json!("CHG-1"), &json!("vendor")));
    assert_eq!(entry["gates"][0]["reason"], "LabelsDiffer", "{entry}");
}

async fn n5_of_the_ledger_everybody_sees_what_they_may_pull(registry: Registry) {
    let registry = promoted(registry).await;
    let live = "Promoted team/app -> team/live";
    for query in ["", "n=1", "repository=team/app", "repository=team/live&n=1"] {
        assert_eq!(ledger(&registry, "alice", query).await, [live], "{query}");
    }
    let elsewhere =
        registry.administer(Method::GET, "/admin/v1/promotions?repository=prod/app").user("alice");
    assert_eq!(elsewhere.send().await.refusal(), (403, "DENIED".to_owned()));
    let bearer = token(&registry, "bob", "repository:team/app:pull&scope=repository:prod/app:pull").await;
    let told = registry.administer(Method::GET, "/admin/v1/promotions").header("authorization", bearer);
    let told = told.send().await.json();
    assert_eq!(told["items"].as_array().unwrap().len(), 2, "as far as the token says: {told}");
    let nobody = registry.administer(Method::GET, "/admin/v1/promotions").send().await;
    assert_eq!(nobody.status, 401);
}

async fn what_is_no_question_to_the_ledger_is_refused(registry: Registry) {
    let registry = ready(registry).await;
    for query in ["repository=A", "digest=sha256:00", "n=x", "last=1", "last=x-1", "policy=a&policy=b"] {
        let target = format!("/admin/v1/promotions?{query}");
        let answer = registry.administer(Method::GET, &target).user("bob").send().await;
        assert_eq!(answer.refusal().0, 400, "{query}");
    }
}
