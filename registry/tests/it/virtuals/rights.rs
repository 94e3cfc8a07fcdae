// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Rights: on the virtual name and on the member.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stowage_registry::Registry;
use stowage_registry::auth::{
    Access, Actions, Htpasswd, Policy, Realms, Rules, SigningKey, Snapshot, Subject,
};
use stowage_registry::operation::Action;

use super::site::{Answer, IMAGE, NOBODY, Site, image, json_of, local, push, send, sha256};
use crate::upstream::servers::push as push_upstream;

super::both_stores!(
    w451_a_member_that_may_not_be_read_counts_as_empty,
    w451_w601_the_challenge_names_the_virtual_repository_and_its_token_opens_the_members,
    w451_a_push_needs_the_right_on_both_names,
    w451_a_name_of_ours_is_not_asked_of_mirrors_for_those_who_may_not_read_it_either,
    w451_the_right_on_a_member_does_not_open_the_virtual_repository,
    w451_what_may_not_be_read_is_not_brought_along_by_a_push,
);

/// alice may do everything in `all/**`, and read mirrors and `team-b/**`; bob all that and everything in `team-a/**`;
/// carol reads `team-a/**` alone; dave may do everything in `all/**` and read `team-a/**`; eve may do everything in both.
fn access() -> Access {
    let policy = |name: &str, users: &[&str], globs: &[&str], actions: &[Action]| Policy {
        name: name.into(),
        repositories: globs.iter().map(|glob| glob.parse().unwrap()).collect(),
        subjects: users.iter().map(|user| Subject::User((*user).to_owned())).collect(),
        actions: actions.iter().copied().collect(),
    };
    let everything = [Action::Pull, Action::Push, Action::Delete];
    let rules = Rules::new(
        Actions::NONE,
        vec![
            policy("all", &["alice", "bob", "dave", "eve"], &["all/**"], &everything),
            policy("sources", &["alice", "bob"], &["mirrors/**", "team-b/**"], &[Action::Pull]),
            policy("team-a", &["bob", "eve"], &["team-a/**"], &everything),
            policy("readers", &["carol", "dave"], &["team-a/**"], &[Action::Pull]),
        ],
    );
    let users = ["alice", "bob", "carol", "dave", "eve"]
        .map(|user| format!("{user}:{}\n", bcrypt::hash(user, 4).unwrap()));
    Access::new(Snapshot {
        rules: Arc::new(rules),
        users: Htpasswd::parse("users", &users.concat()).unwrap(),
        realms: Realms::new("https://registry.example.com", []),
        keys: SigningKey::ephemeral().unwrap(),
    })
}

/// A site with an image in `team-a/app`, one in `team-b/low`, and one of the hub.
async fn guarded(mut site: Site) -> Site {
    push(&site.one, "team-a/app", "1.0", b"of team a").await;
    push(&site.one, "team-a/low", "1.0", b"of team a").await;
    push(&site.one, "team-b/low", "1.0", b"of team b").await;
    push_upstream(site.hub.address(), "", "app", "1.0", b"of the hub");
    push_upstream(site.hub.address(), "", "acme/base", "1.0", b"of the hub");
    site.set(|all| all.members.insert(1, local("team-b", false)));
    site.guarded(access()).await
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{user}")))
}

async fn token(registry: &Registry, user: &str, scope: &str) -> String {
    let target = format!("/token?scope={scope}");
    let answer = send(registry, "GET", &target, &[("authorization", &basic(user))], b"").await;
    format!("Bearer {}", json_of(&answer)["token"].as_str().unwrap())
}

async fn ask(registry: &Registry, credential: &str, method: &str, target: &str) -> Answer {
    send(registry, method, target, &[("authorization", credential)], b"").await
}

/// What a user presents: a password, or the token for what is asked.
async fn credentials(registry: &Registry, user: &str, scope: &str) -> [String; 2] {
    [basic(user), token(registry, user, scope).await]
}

async fn w451_a_member_that_may_not_be_read_counts_as_empty(site: Site) {
    let site = guarded(site).await;
    for credential in credentials(&site.one, "alice", "repository:all/low:pull").await {
        let low = ask(&site.one, &credential, "GET", "/v2/all/low/manifests/1.0").await;
        assert_eq!(
            (low.status, &low.body[..]),
            (200, &image(b"of team b")[..]),
            "the first that alice may read"
        );
        let tags = ask(&site.one, &credential, "GET", "/v2/all/low/tags/list").await;
        assert_eq!(json_of(&tags), json!({ "name": "all/low", "tags": ["1.0"] }));
        for content in
            [format!("manifests/{}", sha256(&image(b"of team a"))), format!("blobs/{}", sha256(b"of team a"))]
        {
            let hidden = ask(&site.one, &credential, "GET", &format!("/v2/all/low/{content}")).await;
            assert_eq!(hidden.status, 404, "{content}");
        }
    }
    for credential in credentials(&site.one, "bob", "repository:all/low:pull").await {
        let first = ask(&site.one, &credential, "GET", "/v2/all/low/manifests/1.0").await;
        assert_eq!((first.status, &first.body[..]), (200, &image(b"of team a")[..]));
    }
}

async fn w451_w601_the_challenge_names_the_virtual_repository_and_its_token_opens_the_members(site: Site) {
    let site = guarded(site).await;
    let target = "/v2/all/acme/base/manifests/1.0";
    let challenge = send(&site.one, "GET", target, &[], b"").await;
    assert_eq!(challenge.status, 401);
    let scope = challenge.header("www-authenticate").split("scope=\"").nth(1).unwrap().trim_end_matches('"');
    assert_eq!(scope, "repository:all/acme/base:pull");
    let bearer = token(&site.one, "alice", scope).await;
    assert_eq!(ask(&site.other, &bearer, "GET", target).await.status, 200);
    let direct = ask(&site.other, &bearer, "GET", "/v2/mirrors/hub/acme/base/manifests/1.0").await;
    assert_eq!(direct.status, 401, "it is for the virtual repository");
}

async fn w451_a_push_needs_the_right_on_both_names(site: Site) {
    let site = guarded(site).await;
    let uploads = "/v2/all/app/blobs/uploads/";
    for (user, refused) in [("alice", 403), ("dave", 403), ("bob", 202)] {
        assert_eq!(ask(&site.one, &basic(user), "POST", uploads).await.status, refused, "{user}");
    }
    for (user, status) in [("dave", 401), ("bob", 202)] {
        let bearer = token(&site.one, user, "repository:all/app:pull,push").await;
        let answer = ask(&site.one, &bearer, "POST", uploads).await;
        assert_eq!(answer.status, status, "{user}: {answer:?}");
        if status == 401 {
            let challenge = answer.header("www-authenticate");
            assert!(challenge.contains("repository:all/app:pull,push"), "{challenge}");
            assert!(challenge.contains("insufficient_scope"), "{challenge}");
        }
    }
    for (user, status) in [("alice", 403), ("bob", 202)] {
        let deleted = ask(&site.one, &basic(user), "DELETE", "/v2/all/app/manifests/1.0").await;
        assert_eq!(deleted.status, status, "{user}");
    }
}

async fn w451_a_name_of_ours_is_not_asked_of_mirrors_for_those_who_may_not_read_it_either(site: Site) {
    let site = guarded(site).await;
    for credential in credentials(&site.one, "alice", "repository:all/app:pull").await {
        let own = ask(&site.one, &credential, "GET", "/v2/all/app/manifests/1.0").await;
        assert_eq!(own.status, 404, "{own:?}");
    }
    assert_eq!(site.asked(), NOBODY);
}

async fn w451_the_right_on_a_member_does_not_open_the_virtual_repository(site: Site) {
    let site = guarded(site).await;
    assert_eq!(ask(&site.one, &basic("carol"), "GET", "/v2/team-a/app/manifests/1.0").await.status, 200);
    assert_eq!(ask(&site.one, &basic("carol"), "GET", "/v2/all/app/manifests/1.0").await.status, 403);
}

async fn w451_what_may_not_be_read_is_not_brought_along_by_a_push(site: Site) {
    let site = guarded(site).await;
    let layer = sha256(b"of team b");
    let head = format!("/v2/all/low/blobs/{layer}");
    let mount = format!("/v2/all/low/blobs/uploads/?mount={layer}&from=all/low");
    for (user, there, mounted) in [("eve", 404, 202), ("bob", 200, 201)] {
        let pushes = token(&site.one, user, "repository:all/low:pull,push").await;
        assert_eq!(ask(&site.one, &pushes, "HEAD", &head).await.status, there, "{user}");
        let manifest = image(b"of team b");
        let fields = [("authorization", &*pushes), ("content-type", IMAGE)];
        let put = send(&site.one, "PUT", "/v2/all/low/manifests/2.0", &fields, &manifest).await;
        assert_eq!(put.status, if user == "eve" { 400 } else { 201 }, "{user}: {put:?}");
        assert_eq!(ask(&site.one, &pushes, "POST", &mount).await.status, mounted, "{user}");
    }
}
