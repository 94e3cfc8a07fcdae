// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::net::Ipv4Addr;

use super::htpasswd::tests::line;
use super::rules::tests::policy;
use super::*;
use crate::operation::Action;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn snapshot() -> Snapshot {
    let policies = vec![
        policy("public", "pub/**", Subject::Anonymous, &[Action::Pull]),
        policy("team", "team/**", Subject::User("alice".into()), &[Action::Pull, Action::Push]),
    ];
    Snapshot {
        rules: Arc::new(Rules::new(Actions::NONE, policies)),
        users: Htpasswd::parse("users", &line("alice", "a:b")).unwrap(),
        realms: Realms::new("https://r.example", ["http://main.ns.svc:5000"]),
        keys: SigningKey::ephemeral().unwrap(),
    }
}

fn get(repository: &str) -> Operation {
    let reference = "latest".parse().unwrap();
    Operation::GetManifest { repository: repository.parse().unwrap(), reference, head: false }
}

fn basic_of(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn admit(
    access: &Access,
    authorization: Option<&str>,
    operation: Operation,
) -> Result<Authorized, Refusal> {
    let authorization = authorization.map(str::as_bytes);
    access.admit(Presented { authorization, host: None, source: HERE }, operation, None).await
}

fn unauthorized(rest: &str) -> Refusal {
    let challenge = format!(r#"Bearer realm="https://r.example/token",service="r.example"{rest}"#);
    Refusal::Unauthorized { challenge }
}

#[tokio::test]
async fn w105_w605_w608_without_credentials_the_challenge_has_no_error() {
    let access = Access::new(snapshot());
    assert!(admit(&access, None, get("pub/a")).await.is_ok());
    let refusal = admit(&access, None, get("team/a")).await.unwrap_err();
    assert_eq!(refusal, unauthorized(r#",scope="repository:team/a:pull""#));
    assert_eq!(admit(&access, None, Operation::Ping).await.unwrap_err(), unauthorized(""));
}

#[tokio::test]
async fn w604_the_realm_follows_the_host_of_the_request() {
    let access = Access::new(snapshot());
    let host = Some("main.ns.svc:5000");
    let presented = Presented { authorization: None, host, source: HERE };
    let Err(Refusal::Unauthorized { challenge }) = access.admit(presented, Operation::Ping, None).await
    else {
        panic!("a ping without credential was not refused")
    };
    assert!(challenge.starts_with(r#"Bearer realm="http://main.ns.svc:5000/token","#), "{challenge}");
}

#[tokio::test]
async fn w606_an_invalid_token_is_refused_even_where_everybody_may() {
    let access = Access::new(snapshot());
    let refusal = admit(&access, Some("Bearer nonsense"), get("pub/a")).await.unwrap_err();
    assert_eq!(refusal, unauthorized(r#",scope="repository:pub/a:pull",error="invalid_token""#));
}

#[tokio::test]
async fn w607_w732_a_token_that_does_not_reach_is_refused_alike_for_every_repository() {
    let access = Access::new(snapshot());
    let wanted = Wanted::parse(["repository:pub/a:pull,push"]);
    let minted = access.token(Credential::Header(None), HERE, &wanted).await.unwrap();
    assert_eq!(minted.scope, "repository:pub/a:pull");
    let bearer = format!("bearer {}", minted.token);
    assert!(admit(&access, Some(&bearer), get("pub/a")).await.is_ok());
    for name in ["team/a", "other"] {
        let refusal = admit(&access, Some(&bearer), get(name)).await.unwrap_err();
        let rest = format!(r#",scope="repository:{name}:pull",error="insufficient_scope""#);
        assert_eq!(refusal, unauthorized(&rest));
    }
}

#[tokio::test]
async fn w609_w610_basic_is_accepted_on_every_request_and_wrong_is_challenged() {
    let access = Access::new(snapshot());
    let right = basic_of("alice", "a:b");
    assert_eq!(admit(&access, Some(&right), get("team/a")).await.unwrap().subject(), Some("alice"));
    assert_eq!(admit(&access, Some(&right), get("other")).await.unwrap_err(), Refusal::Denied);
    for wrong in [basic_of("alice", "a"), basic_of("bob", "a:b"), "Basic !".into(), "Digest x".into()] {
        let refusal = admit(&access, Some(&wrong), get("pub/a")).await.unwrap_err();
        assert_eq!(refusal, unauthorized(r#",scope="repository:pub/a:pull""#), "{wrong}");
    }
}

#[tokio::test]
async fn w497_w612_empty_user_and_password_are_anonymous() {
    let access = Access::new(snapshot());
    let wanted = Wanted::parse(["repository:pub/a:pull", "repository:team/a:pull", "registry:catalog:*"]);
    let minted = access.token(Credential::Header(Some(b"Basic Og==")), HERE, &wanted).await.unwrap();
    assert_eq!(minted.scope, "repository:pub/a:pull");
    let nothing = access.token(Credential::Header(None), HERE, &Wanted::default()).await.unwrap();
    assert_eq!(nothing.scope, "");
}

#[tokio::test]
async fn w613_w619_wrong_passwords_and_our_own_tokens_get_no_token() {
    let access = Access::new(snapshot());
    let wanted = Wanted::default();
    let own = access.token(Credential::Header(None), HERE, &wanted).await.unwrap().token;
    for header in [basic_of("alice", "wrong"), format!("Bearer {own}"), basic_of("alice", &own)] {
        let refused = access.token(Credential::Header(Some(header.as_bytes())), HERE, &wanted).await;
        assert!(matches!(refused, Err(TokenRefusal::BadCredentials)));
    }
}

#[tokio::test]
async fn w614_granted_is_what_is_asked_and_allowed() {
    let access = Access::new(snapshot());
    let wanted = Wanted::parse(["repository:team/a:*", "repository:x:pull", "registry:catalog:*"]);
    let credential = Credential::Password { user: "alice", password: "a:b" };
    let minted = access.token(credential, HERE, &wanted).await.unwrap();
    assert_eq!(minted.scope, "repository:team/a:pull,push registry:catalog:*");
    assert_eq!(minted.expires_in, 900);
}

#[tokio::test]
async fn w624_w625_a_swap_keeps_tokens_good_and_takes_rights_from_users_at_once() {
    let access = Access::new(snapshot());
    let wanted = Wanted::parse(["repository:team/a:pull"]);
    let credential = Credential::Password { user: "alice", password: "a:b" };
    let bearer = format!("Bearer {}", access.token(credential, HERE, &wanted).await.unwrap().token);
    let changed = snapshot();
    access.swap(Snapshot { rules: Arc::new(Rules::new(Actions::NONE, Vec::new())), ..changed });
    assert!(admit(&access, Some(&bearer), get("team/a")).await.is_ok());
    let basic = basic_of("alice", "a:b");
    // The password's hash was made anew by the swap; the right is gone.
    assert_eq!(admit(&access, Some(&basic), get("team/a")).await.unwrap_err(), Refusal::Denied);
}

#[tokio::test]
async fn w122_without_authentication_nobody_is_asked() {
    let open = Snapshot { rules: Arc::new(Rules::open()), ..snapshot() };
    let access = Access::new(open);
    for authorization in [None, Some("Bearer nonsense"), Some("Basic !")] {
        assert!(admit(&access, authorization, Operation::Ping).await.is_ok());
    }
}

#[tokio::test]
async fn w451_w614_a_token_says_what_its_bearer_may_in_members_and_the_scope_does_not() {
    let access = Access::new(snapshot());
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
    let wanted = Wanted::parse(["repository:team/all:pull,push", "repository:other/all:pull"]);
    let wanted = wanted.with_members(|_| names(&["team/a", "pub/a", "other/a"]));
    let credential = Credential::Password { user: "alice", password: "a:b" };
    let minted = access.token(credential, HERE, &wanted).await.unwrap();
    assert_eq!(minted.scope, "repository:team/all:pull,push");
    let bearer = format!("Bearer {}", minted.token);
    let allowed = admit(&access, Some(&bearer), get("team/all")).await.unwrap();
    let readable = ["team/a", "pub/a", "other/a"].map(|name| allowed.may_read_member(&name.parse().unwrap()));
    assert_eq!(readable, [true, true, false]);
    assert!(!allowed.may_read(&"team/a".parse().unwrap()), "only through the virtual repository");
}
