// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who may do what, decided before anything is looked up.
//!
//! A request's credential becomes an [`Identity`], the identity and the [`Operation`] become an [`Authorized`],
//! and nothing is dispatched without one. The same rules decide what a token may allow.
//!
//! Guarantees: needs neither database nor bucket (W-480). Rules, users and keys are one snapshot that a change
//! swaps as a whole; a request sees one of them from its beginning to its decision.
//! Never: writes a credential to a log or an error.

mod authorize;
mod caller;
mod challenge;
mod htpasswd;
mod identity;
mod keys;
mod logins;
mod rules;
mod scope;
mod token;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stowage_oci::Name;

pub use authorize::{Authorized, Refused, authorize};
pub use caller::Caller;
pub use challenge::{Realms, TokenError};
pub use htpasswd::{Htpasswd, HtpasswdError, Problem};
pub use identity::{Grants, Identity, Principal};
pub use keys::{KeyError, Keyring, SigningKey};
pub use rules::{Actions, Policy, Rules, Subject};
pub use scope::Wanted;
pub use token::{MintError, Minted};

use crate::operation::Operation;
use crate::ops::clock;
use logins::{LoginError, Logins};

/// Most policies that a token names for the catalog.
const CATALOG_POLICIES: usize = 32;

/// Everything that authentication and authorization go by.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// Who has a password.
    pub users: Htpasswd,
    /// Where clients are sent for tokens.
    pub realms: Realms,
    /// What signs them.
    pub keys: Vec<SigningKey>,
}

struct InForce {
    rules: Arc<Rules>,
    users: Htpasswd,
    realms: Realms,
    keys: Keyring,
}

/// The access of clients. Shared by all requests.
pub struct Access {
    inforce: ArcSwap<InForce>,
    logins: Logins,
}

/// What a request says about who makes it.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The `Host` it was sent to, or the authority.
    pub host: Option<&'a str>,
    /// Where it came from.
    pub source: IpAddr,
}

/// Why a request is not served. What a client may know of it is in here, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 401 `UNAUTHORIZED`: a credential is missing, wrong, or does not reach.
    #[error("authentication required")]
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: String,
    },
    /// 403 `DENIED`: the principal is known and may not.
    #[error("requested access to the resource is denied")]
    Denied,
    /// 403 `DENIED`: the registry knows no names, and this is for somebody with a name.
    #[error(
        "this registry has no authentication, and its admin port serves nobody without a name: set spec.auth"
    )]
    NoAuthentication,
    /// 429 `TOOMANYREQUESTS`: too many wrong passwords.
    #[error("too many failed logins")]
    TooManyFailures {
        /// How long to wait.
        retry_after: Duration,
    },
}

/// Why a credential names nobody.
enum Unauthenticated {
    Wrong,
    InvalidToken,
    Throttled(Duration),
}

impl Unauthenticated {
    fn refusal(self, unauthorized: impl FnOnce(Option<TokenError>) -> Refusal) -> Refusal {
        match self {
            Self::Wrong => unauthorized(None),
            Self::InvalidToken => unauthorized(Some(TokenError::Invalid)),
            Self::Throttled(retry_after) => Refusal::TooManyFailures { retry_after },
        }
    }
}

/// Why no token is given.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// The credential is not good.
    #[error("the user name or the password is wrong")]
    BadCredentials,
    /// Too many wrong passwords.
    #[error("too many failed logins")]
    TooManyFailures {
        /// How long to wait.
        retry_after: Duration,
    },
    /// It could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// The credential with which a token is asked for.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// The value of `Authorization`, if there was one.
    Header(Option<&'a [u8]>),
    /// User name and password of a form.
    Password {
        /// The user name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
}

impl Access {
    /// Begins with this snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        let Snapshot { rules, users, realms, keys } = snapshot;
        let keys = Keyring::new(keys, clock::seconds());
        Self { inforce: ArcSwap::from_pointee(InForce { rules, users, realms, keys }), logins: Logins::new() }
    }

    /// Goes on with this snapshot; requests that were decided stay so.
    pub fn swap(&self, snapshot: Snapshot) {
        let Snapshot { rules, users, realms, keys } = snapshot;
        let keys = self.inforce.load().keys.replaced(keys, clock::seconds());
        self.inforce.store(Arc::new(InForce { rules, users, realms, keys }));
    }

    /// Whether there is no authentication at all.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.inforce.load().rules.is_open()
    }

    /// Decides whether the request may do the operation; `member`: the repository in which it is done, if the one it is
    /// about is virtual.
    pub async fn admit(
        &self,
        presented: Presented<'_>,
        operation: Operation,
        member: Option<&Name>,
    ) -> Result<Authorized, Refusal> {
        let inforce = self.inforce.load_full();
        let challenge = |operation: &Operation, error| {
            let scope = scope::offered(operation);
            let challenge = inforce.realms.challenge(presented.host, scope.as_deref(), error);
            Refusal::Unauthorized { challenge }
        };
        let identity = self.identify(&inforce, presented).await;
        let identity = identity.map_err(|unknown| unknown.refusal(|error| challenge(&operation, error)))?;
        let asked = operation.clone();
        authorize(operation, member, identity, &inforce.rules).map_err(|refused| match refused {
            Refused::NoCredential => challenge(&asked, None),
            Refused::InsufficientScope => challenge(&asked, Some(TokenError::InsufficientScope)),
            Refused::Denied => Refusal::Denied,
        })
    }

    /// The challenge of a 401 that is about no operation.
    #[must_use]
    pub fn challenge(&self, host: Option<&str>) -> String {
        self.inforce.load().realms.challenge(host, None, None)
    }

    async fn identify(
        &self,
        inforce: &InForce,
        presented: Presented<'_>,
    ) -> Result<Identity, Unauthenticated> {
        if inforce.rules.is_open() {
            return Ok(Identity::Anonymous);
        }
        match Authorization::parse(presented.authorization) {
            Authorization::None => Ok(Identity::Anonymous),
            Authorization::Unreadable => Err(Unauthenticated::Wrong),
            Authorization::Bearer(token) => {
                let verified = token::verify(&inforce.keys, &inforce.realms, token, clock::seconds());
                verified.ok().ok_or(Unauthenticated::InvalidToken)
            }
            Authorization::Basic { user, password } => {
                let login = self.logins.verify(&inforce.users, &user, &password, presented.source).await;
                login.map(Identity::User).map_err(|error| match error {
                    LoginError::Wrong => Unauthenticated::Wrong,
                    LoginError::Throttled { retry_after } => Unauthenticated::Throttled(retry_after),
                })
            }
        }
    }

    /// Makes a token for what is wanted and allowed. One of our own tokens is no credential for it (W-619).
    pub async fn token(
        &self,
        credential: Credential<'_>,
        source: IpAddr,
        wanted: &Wanted,
    ) -> Result<Minted, TokenRefusal> {
        let inforce = self.inforce.load_full();
        let who = self.applicant(&inforce, credential, source).await?;
        let grants = granted(&inforce.rules, who.as_ref(), wanted);
        let subject = who.as_ref().map(|principal| &*principal.name);
        let minted = token::mint(&inforce.keys, &inforce.realms, subject, &grants, clock::seconds())?;
        tracing::debug!(identity.subject = subject, token.scope = minted.scope, "token made");
        Ok(minted)
    }

    /// Who asks for a token; `None` for the anonymous.
    async fn applicant(
        &self,
        inforce: &InForce,
        credential: Credential<'_>,
        source: IpAddr,
    ) -> Result<Option<Principal>, TokenRefusal> {
        if inforce.rules.is_open() {
            return Ok(None);
        }
        let header;
        let (user, password) = match credential {
            Credential::Password { user, password } => (user, password),
            Credential::Header(value) => {
                header = Authorization::parse(value);
                match &header {
                    Authorization::None => return Ok(None),
                    Authorization::Basic { user, password } => (user.as_str(), password.as_str()),
                    Authorization::Bearer(_) | Authorization::Unreadable => {
                        return Err(TokenRefusal::BadCredentials);
                    }
                }
            }
        };
        let login = self.logins.verify(&inforce.users, user, password, source).await;
        login.map(Some).map_err(|error| match error {
            LoginError::Wrong => TokenRefusal::BadCredentials,
            LoginError::Throttled { retry_after } => TokenRefusal::TooManyFailures { retry_after },
        })
    }
}

/// What is wanted and allowed (W-614); in a member of a virtual repository, what is allowed in both (W-451).
fn granted(rules: &Rules, who: Option<&Principal>, wanted: &Wanted) -> Grants {
    let repositories = wanted.repositories.iter().map(|(name, actions)| {
        let allowed = rules.granted(who, name).and(*actions);
        (name.clone(), allowed)
    });
    let repositories: BTreeMap<_, _> = repositories.filter(|(_, allowed)| !allowed.is_empty()).collect();
    let mut members = BTreeMap::<Name, Actions>::new();
    for (name, allowed) in &repositories {
        for member in wanted.members.get(name).into_iter().flatten() {
            let there = rules.granted(who, member).and(*allowed);
            if !there.is_empty() {
                let known = members.entry(member.clone()).or_default();
                *known = known.or(there);
            }
        }
    }
    let catalog = wanted.catalog && (who.is_some() || rules.is_open());
    let policies = who.filter(|_| catalog).map(|who| rules.pulling(who, CATALOG_POLICIES));
    let policies = policies.unwrap_or_default();
    Grants { repositories, members, catalog, policies, uncounted: !rules.counts(who) }
}

/// What `Authorization` says.
enum Authorization<'a> {
    None,
    Basic {
        user: String,
        password: String,
    },
    Bearer(&'a str),
    /// Another scheme, or damaged.
    Unreadable,
}

impl<'a> Authorization<'a> {
    /// Empty user name and password are no credential (W-497).
    fn parse(value: Option<&'a [u8]>) -> Self {
        let Some(value) = value else { return Self::None };
        let text = std::str::from_utf8(value).unwrap_or_default().trim();
        let Some((scheme, rest)) = text.split_once(' ') else { return Self::Unreadable };
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest.trim());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Unreadable;
        }
        match basic(rest.trim()) {
            Some((user, password)) if user.is_empty() && password.is_empty() => Self::None,
            Some((user, password)) => Self::Basic { user, password },
            None => Self::Unreadable,
        }
    }
}

/// User name and password, split at the first colon (W-610).
fn basic(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests;
