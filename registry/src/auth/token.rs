// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Our bearer tokens: JWTs signed with ES256, good on every replica that has the key.
//!
//! Guarantees: only algorithm ES256, a key of ours named by its thumbprint, our issuer and our audience are
//! taken, with 60 s of leeway. What a token's header says about where keys could be had is never looked at.
//! Never: asks the database; a right that was revoked ends with the token's life at the latest.

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use stowage_oci::Name;

use super::challenge::Realms;
use super::identity::{Grants, Identity};
use super::keys::Keyring;
use super::rules::Actions;
use super::scope;
use crate::operation::Action;

/// Longest token, in bytes.
pub(super) const MAX_LENGTH: usize = 8 * 1024;
/// Seconds that a token for reading lives, and one for writing.
const READING: u64 = 300;
const WRITING: u64 = 900;

#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Access>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<Access>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    uncounted: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// A token that was just made.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The token itself.
    pub token: String,
    /// Seconds it lives.
    pub expires_in: u64,
    /// When it was made, in seconds since 1970.
    pub issued_at: u64,
    /// What it allows, as scopes joined by spaces.
    pub scope: String,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// There is no key to sign with.
    #[error("there is no key to sign tokens with")]
    NoKey,
    /// Signing failed.
    #[error("sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// What is asked for does not fit.
    #[error("the token would be longer than {MAX_LENGTH} bytes; ask for fewer scopes")]
    TooLong,
}

/// The token is not good here.
#[derive(Debug, thiserror::Error)]
#[error("the token is not good here")]
pub(super) struct InvalidToken;

/// Makes a token that allows `grants` to `subject`.
pub(super) fn mint(
    keys: &Keyring,
    realms: &Realms,
    subject: Option<&str>,
    grants: &Grants,
    now: u64,
) -> Result<Minted, MintError> {
    let key = keys.signing(now).ok_or(MintError::NoKey)?;
    let access = access(grants);
    let expires_in = lifetime(grants);
    let scope = access.iter().map(Access::scope).collect::<Vec<_>>().join(" ");
    let claims = Claims {
        iss: realms.issuer().to_owned(),
        sub: subject.unwrap_or_default().to_owned(),
        aud: realms.service().to_owned(),
        exp: now + expires_in,
        nbf: now,
        iat: now,
        jti: uuid::Uuid::new_v4().to_string(),
        access,
        members: grants.members.iter().map(Access::on).collect(),
        rules: grants.policies.iter().map(ToString::to_string).collect(),
        uncounted: grants.uncounted,
    };
    let header = Header { kid: Some(key.id.to_string()), ..Header::new(Algorithm::ES256) };
    let token = jsonwebtoken::encode(&header, &claims, &key.signs).map_err(MintError::Sign)?;
    if token.len() > MAX_LENGTH {
        return Err(MintError::TooLong);
    }
    Ok(Minted { token, expires_in, issued_at: now, scope })
}

fn lifetime(grants: &Grants) -> u64 {
    let writes = |a: &Actions| a.contains(Action::Push) || a.contains(Action::Delete);
    if grants.repositories.values().any(writes) { WRITING } else { READING }
}

impl Access {
    fn on((name, actions): (&Name, &Actions)) -> Self {
        Self {
            kind: "repository".to_owned(),
            name: name.to_string(),
            actions: actions.iter().map(|action| scope::word(action).to_owned()).collect(),
        }
    }

    /// The repository and the actions on it.
    fn read(self) -> Option<(Name, Actions)> {
        let actions = self.actions.iter().filter_map(|word| scope::action(word)).collect();
        Some((self.name.parse().ok()?, actions))
    }

    fn scope(&self) -> String {
        format!("{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

fn access(grants: &Grants) -> Vec<Access> {
    let repositories = grants.repositories.iter().map(Access::on);
    let catalog = grants.catalog.then(|| Access {
        kind: "registry".to_owned(),
        name: "catalog".to_owned(),
        actions: vec!["*".to_owned()],
    });
    repositories.chain(catalog).collect()
}

/// Whose token it is and what it allows, at `now`.
pub(super) fn verify(
    keys: &Keyring,
    realms: &Realms,
    token: &str,
    now: u64,
) -> Result<Identity, InvalidToken> {
    if token.len() > MAX_LENGTH {
        return Err(InvalidToken);
    }
    let header = jsonwebtoken::decode_header(token).ok().ok_or(InvalidToken)?;
    let id = header.kid.filter(|_| header.alg == Algorithm::ES256 && header.crit.is_none());
    let key = id.and_then(|id| keys.verifying(&id, now)).ok_or(InvalidToken)?;
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_required_spec_claims(&["exp", "iss", "aud"]);
    rules.set_issuer(&[realms.issuer()]);
    rules.set_audience(&[realms.service()]);
    rules.validate_nbf = true;
    let token = jsonwebtoken::decode::<Claims>(token, &key.verifies, &rules).ok().ok_or(InvalidToken)?;
    Ok(identity(token.claims))
}

fn identity(claims: Claims) -> Identity {
    let mut grants = Grants::default();
    for access in claims.access {
        match access.kind.as_str() {
            "registry" => grants.catalog |= access.name == "catalog",
            "repository" => grants.repositories.extend(access.read()),
            _ => {}
        }
    }
    grants.members = claims.members.into_iter().filter_map(Access::read).collect();
    grants.policies = claims.rules.into_iter().map(Into::into).collect();
    grants.uncounted = claims.uncounted;
    let subject = Some(claims.sub).filter(|sub| !sub.is_empty()).map(Into::into);
    Identity::Bearer { subject, grants }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::EncodingKey;
    use serde_json::{Value, json};

    use super::super::keys::SigningKey;
    use super::*;
    use crate::ops::clock;

    fn realms() -> Realms {
        Realms::new("https://r.example", [])
    }

    fn keys() -> Keyring {
        Keyring::new(SigningKey::ephemeral().unwrap(), 0)
    }

    fn grants(actions: Actions) -> Grants {
        Grants { repositories: [("a/b".parse().unwrap(), actions)].into(), ..Grants::default() }
    }

    fn pull() -> Grants {
        grants(Actions::NONE.with(Action::Pull))
    }

    fn minted(keys: &Keyring, now: u64) -> Minted {
        mint(keys, &realms(), Some("alice"), &pull(), now).unwrap()
    }

    fn claims(now: u64) -> Claims {
        Claims {
            iss: "https://r.example".into(),
            sub: "alice".into(),
            aud: "r.example".into(),
            exp: now + 300,
            nbf: now,
            iat: now,
            jti: String::new(),
            access: Vec::new(),
            members: Vec::new(),
            rules: Vec::new(),
            uncounted: false,
        }
    }

    #[test]
    fn w621_a_token_carries_its_subject_and_rights() {
        let (keys, now) = (keys(), clock::seconds());
        let all = Grants { catalog: true, policies: vec!["p".into()], ..grants(Actions::CONTENT) };
        let token = mint(&keys, &realms(), Some("alice"), &all, now).unwrap();
        assert_eq!((token.expires_in, token.issued_at), (900, now));
        assert_eq!(token.scope, "repository:a/b:pull,push,delete registry:catalog:*");
        let identity = verify(&keys, &realms(), &token.token, now).unwrap();
        assert_eq!(identity, Identity::Bearer { subject: Some("alice".into()), grants: all });
        assert_eq!(minted(&keys, now).expires_in, 300);
    }

    /// As RFC 7638 has it, of a public key on P-256.
    fn thumbprint(pem: &str) -> String {
        let pair = rcgen::KeyPair::from_pem(pem).unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        let key = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes()))
    }

    #[test]
    fn w622_a_token_says_who_made_it_for_whom_for_what_and_for_how_long() {
        let pem = super::super::keys::new_pem().unwrap();
        let (keys, now) = (Keyring::new(SigningKey::parse(pem.as_bytes()).unwrap(), 0), clock::seconds());
        let policies = vec!["one".into(), "two".into()];
        let all = Grants { catalog: true, policies, ..grants(Actions::CONTENT) };
        let token = mint(&keys, &realms(), Some("alice"), &all, now).unwrap().token;
        let part = |at: usize| -> Value {
            let part = token.split('.').nth(at).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(part(0), json!({ "typ": "JWT", "alg": "ES256", "kid": thumbprint(&pem) }));
        let mut claims = part(1);
        let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
        uuid::Uuid::parse_str(id.as_str().unwrap()).unwrap();
        let access = json!([
            { "type": "repository", "name": "a/b", "actions": ["pull", "push", "delete"] },
            { "type": "registry", "name": "catalog", "actions": ["*"] },
        ]);
        let expected = json!({
            "iss": "https://r.example", "sub": "alice", "aud": "r.example",
            "exp": now + 900, "nbf": now, "iat": now, "access": access, "rules": ["one", "two"],
        });
        assert_eq!(claims, expected);
    }

    #[test]
    fn w621_w863_a_token_of_one_replica_is_good_on_another_and_after_a_restart() {
        let pem = super::super::keys::new_pem().unwrap();
        let replica = || Keyring::new(SigningKey::parse(pem.as_bytes()).unwrap(), 0);
        let now = clock::seconds();
        let token = minted(&replica(), now).token;
        assert!(verify(&replica(), &realms(), &token, now).is_ok());
    }

    #[test]
    fn w606_expired_foreign_and_damaged_tokens_are_invalid() {
        let (keys, now) = (keys(), clock::seconds());
        let expired = minted(&keys, now - 361).token;
        let with_leeway = minted(&keys, now - 350).token;
        assert!(verify(&keys, &realms(), &expired, now).is_err());
        assert!(verify(&keys, &realms(), &with_leeway, now).is_ok());
        let token = minted(&keys, now).token;
        assert!(verify(&self::keys(), &realms(), &token, now).is_err(), "another key");
        assert!(verify(&keys, &Realms::new("https://other.example", []), &token, now).is_err());
        for damaged in [
            "",
            "a.b.c",
            token.trim_end_matches(|c: char| c != '.'),
            &format!("{token}{}", "x".repeat(MAX_LENGTH)),
        ] {
            assert!(verify(&keys, &realms(), damaged, now).is_err());
        }
    }

    #[test]
    fn w623_no_other_algorithm_and_no_critical_header_is_taken() {
        let (keys, now) = (keys(), clock::seconds());
        let key = keys.signing(now).unwrap();
        let kid = Some(key.id.to_string());
        let sign =
            |header: &Header, key: &EncodingKey| jsonwebtoken::encode(header, &claims(now), key).unwrap();
        let good = sign(&Header { kid: kid.clone(), ..Header::new(Algorithm::ES256) }, &key.signs);
        assert!(verify(&keys, &realms(), &good, now).is_ok());
        let symmetric = EncodingKey::from_secret(b"secret");
        let hs256 = sign(&Header { kid: kid.clone(), ..Header::new(Algorithm::HS256) }, &symmetric);
        let critical = Header { kid, crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::ES256) };
        let no_kid = sign(&Header::new(Algorithm::ES256), &key.signs);
        for bad in [hs256, sign(&critical, &key.signs), no_kid] {
            assert!(verify(&keys, &realms(), &bad, now).is_err());
        }
        let body = good.split('.').nth(1).unwrap();
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.");
        assert!(verify(&keys, &realms(), &none, now).is_err());
    }

    #[test]
    fn w618_a_token_too_long_for_a_header_is_not_made() {
        let name = |i: u32| format!("{}/{i}", "a".repeat(250)).parse().unwrap();
        let many =
            Grants { repositories: (0..30).map(|i| (name(i), Actions::ALL)).collect(), ..Grants::default() };
        let made = mint(&keys(), &realms(), None, &many, clock::seconds());
        assert!(matches!(made, Err(MintError::TooLong)));
    }
}
