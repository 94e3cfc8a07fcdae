// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the admission policies let real users do.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use stowage_crds::{AccessPolicy, Mirror, Promotion, Registry};

use crate::support::scene::{Scene, mirror, shared_registry, wait};

const AUTHOR: &str = "author-of-mirrors";

/// Gives the author these rights in the namespace of the scene.
async fn allow(scene: &Scene, name: &str, rules: Value) {
    allow_user(scene, AUTHOR, name, rules).await;
}

pub(crate) async fn allow_user(scene: &Scene, user: &str, name: &str, rules: Value) {
    let role: Role = serde_json::from_value(json!({ "metadata": { "name": name }, "rules": rules })).unwrap();
    scene.typed::<Role>().create(&PostParams::default(), &role).await.unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "User", "name": user }],
    }))
    .unwrap();
    scene.typed::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
}

fn secret(name: &str, verb: &str) -> Value {
    json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": [verb] }])
}

async fn apply(scene: &Scene, client: &Client, body: &Value, dry_run: bool) -> Result<(), String> {
    let api: Api<Mirror> = Api::namespaced(client.clone(), &scene.namespace);
    let apply = PatchParams { dry_run, ..PatchParams::apply("author").force() };
    let applied = api.patch(body["metadata"]["name"].as_str().unwrap(), &apply, &Patch::Apply(body)).await;
    applied.map(drop).map_err(|error| error.to_string())
}

/// Rights and policies are in force a moment after they exist.
async fn until_allowed(scene: &Scene, client: &Client, body: &Value) {
    for _ in 0..100 {
        if apply(scene, client, body, false).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    apply(scene, client, body, false).await.unwrap();
}

/// Only tried: what was let through before the policy was in force would be there from then on.
async fn until_refused(scene: &Scene, client: &Client, body: &Value, field: &str) {
    let mut answer = String::new();
    for _ in 0..100 {
        match apply(scene, client, body, true).await {
            Err(error) if error.contains(field) => return,
            other => answer = format!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("expected a refusal that names {field}, found {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_may_name_only_secrets_that_its_author_may_read() {
    let Some(scene) = Scene::set().await else { return };
    let client = scene.cluster.user(AUTHOR);
    let mirrors = json!([{ "apiGroups": ["stowage.dev"], "resources": ["mirrors"], "verbs": ["*"] }]);
    allow(&scene, "mirrors", mirrors).await;
    until_allowed(&scene, &client, &mirror("plain", "plain", json!({}))).await;
    for (field, value) in [
        ("secretRef", json!({ "name": "login" })),
        ("caSecretRef", json!({ "name": "login", "key": "ca.crt" })),
        ("clientCertSecretRef", json!({ "name": "login" })),
        ("proxySecretRef", json!({ "name": "login", "key": "url" })),
    ] {
        let body = mirror(&format!("with-{}", field.to_lowercase()), "hub", json!({ field: value }));
        until_refused(&scene, &client, &body, &format!("spec.upstream.{field}")).await;
    }
    // To list others, or to read another, is not to read this one.
    allow(&scene, "lists", secret("login", "list")).await;
    allow(&scene, "other", secret("other", "get")).await;
    let with = |name: &str| mirror("hub", "hub", json!({ "secretRef": { "name": name } }));
    until_allowed(&scene, &client, &with("other")).await;
    until_refused(&scene, &client, &with("login"), "spec.upstream.secretRef").await;
    allow(&scene, "login", secret("login", "get")).await;
    until_allowed(&scene, &client, &with("login")).await;

    // Who changes something else of a mirror that is there needs no right to its Secrets.
    scene.apply(mirror("theirs", "theirs", json!({ "secretRef": { "name": "hidden" } }))).await;
    let labelled = json!({ "metadata": { "labels": { "team": "a" } } });
    let api: Api<Mirror> = Api::namespaced(client.clone(), &scene.namespace);
    api.patch("theirs", &PatchParams::default(), &Patch::Merge(&labelled)).await.unwrap();
    let changed = json!({ "spec": { "suspend": true } });
    let refused = api.patch("theirs", &PatchParams::default(), &Patch::Merge(&changed)).await;
    assert!(refused.unwrap_err().to_string().contains("spec.upstream.secretRef"));
}

/// Gives a user a role of the whole cluster in the namespace of the scene.
async fn bind(scene: &Scene, user: &str, role: &str) {
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": role },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "User", "name": user }],
    }))
    .unwrap();
    scene.typed::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_edits_a_namespace_writes_all_kinds_but_registries_and_access_policies() {
    let Some(scene) = Scene::set().await else { return };
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    let registry: Registry = serde_json::from_value(shared_registry(json!({}))).unwrap();
    let policy: AccessPolicy = serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "AccessPolicy", "metadata": { "name": "team" },
        "spec": {
            "registryRef": { "name": "main" }, "repositories": ["team/**"],
            "subjects": [{ "user": "alice" }], "actions": ["Pull"],
        },
    }))
    .unwrap();
    let mirror: Mirror = serde_json::from_value(mirror("hub", "hub", json!({}))).unwrap();
    // By the built-in role, to which ours is added, and by ours alone.
    for role in ["edit", "stowage-edit"] {
        let user = format!("has-{role}");
        bind(&scene, &user, role).await;
        let client = scene.cluster.user(&user);
        let mirrors: Api<Mirror> = Api::namespaced(client.clone(), &scene.namespace);
        assert!(wait(async || mirrors.create(&tried, &mirror).await.is_ok()).await, "{role}");
        let registries: Api<Registry> = Api::namespaced(client.clone(), &scene.namespace);
        registries.list(&ListParams::default()).await.unwrap();
        let refused = registries.create(&tried, &registry).await.unwrap_err().to_string();
        assert!(refused.contains("cannot create resource"), "{role}: {refused}");
        let policies: Api<AccessPolicy> = Api::namespaced(client, &scene.namespace);
        let refused = policies.create(&tried, &policy).await.unwrap_err().to_string();
        assert!(refused.contains("cannot create resource"), "{role}: {refused}");
    }
}

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn promotion(name: &str, by: &str) -> Promotion {
    serde_json::from_value(json!({
        "apiVersion": "stowage.dev/v1alpha1", "kind": "Promotion", "metadata": { "name": name },
        "spec": {
            "policyRef": { "name": "to-prod" }, "requestedBy": by,
            "artifact": { "repository": "staging/app", "tag": "1.0" },
        },
    }))
    .unwrap()
}

pub(crate) fn promotions(verb: &str) -> Value {
    json!([
        { "apiGroups": ["stowage.dev"], "resources": ["promotions"], "verbs": ["*"] },
        {
            "apiGroups": ["stowage.dev"], "resources": ["promotionpolicies"], "resourceNames": ["to-prod"],
            "verbs": [verb],
        },
    ])
}

/// Creates it; the refusal otherwise. A dry run leaves nothing.
async fn create(scene: &Scene, client: &Client, body: &Promotion, dry_run: bool) -> Result<(), String> {
    let api: Api<Promotion> = Api::namespaced(client.clone(), &scene.namespace);
    let params = PostParams { dry_run, ..PostParams::default() };
    api.create(&params, body).await.map(drop).map_err(|error| error.to_string())
}

/// Replaces the list of approvals.
async fn approve(scene: &Scene, client: &Client, name: &str, approvals: &Value) -> Result<(), String> {
    let api: Api<Promotion> = Api::namespaced(client.clone(), &scene.namespace);
    let patch = json!({ "spec": { "approvals": approvals } });
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_promotions_are_asked_for_and_approved_by_who_may_in_their_own_names() {
    let Some(scene) = Scene::set().await else { return };
    let [carol, alice, bob] = ["carol", "alice", "bob"].map(|name| scene.cluster.user(name));
    allow_user(&scene, "carol", "promoter", promotions("promote")).await;
    allow_user(&scene, "alice", "approver", promotions("approve")).await;
    allow_user(&scene, "bob", "neither", promotions("get")).await;
    let refused = |answer: Result<(), String>, why: &str| {
        let text = answer.expect_err(why);
        assert!(text.contains(why), "expected {why}, found {text}");
    };

    // Rights and policies are in force a moment after they exist.
    let mut last = Err(String::new());
    for _ in 0..100 {
        last = create(&scene, &carol, &promotion("x", "carol"), true).await;
        let outsider = create(&scene, &bob, &promotion("x", "bob"), true).await;
        if last.is_ok() && outsider.is_err_and(|error| error.contains("verb promote")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last.unwrap();
    refused(create(&scene, &bob, &promotion("x", "bob"), true).await, "the verb promote");
    refused(create(&scene, &alice, &promotion("x", "alice"), true).await, "the verb promote");
    refused(create(&scene, &carol, &promotion("x", "alice"), true).await, "your own user name");
    let mut approved = promotion("x", "carol");
    approved.spec.approvals = serde_json::from_value(json!([{ "user": "alice", "digest": DIGEST }])).unwrap();
    refused(create(&scene, &carol, &approved, true).await, "an approval is added alone");
    create(&scene, &carol, &promotion("x", "carol"), false).await.unwrap();

    let yes = |user: &str, digest: &str| json!({ "user": user, "digest": digest });
    let by = |user: &str| json!([yes(user, DIGEST)]);
    refused(approve(&scene, &alice, "x", &by("alice")).await, "the digest in status.artifact");
    let pinned = json!({ "status": { "artifact": { "repository": "staging/app", "digest": DIGEST } } });
    let all: Api<Promotion> = scene.typed();
    all.patch_status("x", &PatchParams::default(), &Patch::Merge(&pinned)).await.unwrap();
    refused(
        approve(&scene, &alice, "x", &json!([yes("alice", OTHER)])).await,
        "the digest in status.artifact",
    );
    refused(approve(&scene, &carol, "x", &by("carol")).await, "cannot approve");
    refused(approve(&scene, &bob, "x", &by("bob")).await, "the verb approve");
    refused(approve(&scene, &alice, "x", &by("bob")).await, "in your own name");
    let two = json!([yes("alice", DIGEST), yes("bob", DIGEST)]);
    refused(approve(&scene, &alice, "x", &two).await, "added alone");
    approve(&scene, &alice, "x", &by("alice")).await.unwrap();
    refused(approve(&scene, &alice, "x", &json!([])).await, "approvals are only added");
    refused(approve(&scene, &alice, "x", &json!([yes("alice", OTHER)])).await, "approvals are only added");
    let forged = json!({ "spec": { "requestedBy": "bob" } });
    let api: Api<Promotion> = Api::namespaced(carol.clone(), &scene.namespace);
    let answer = api.patch("x", &PatchParams::default(), &Patch::Merge(&forged)).await;
    refused(answer.map(drop).map_err(|error| error.to_string()), "cannot change");
}
