// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who asks for something on the admin port, and what the rules let them do.
//!
//! Pure but for the login. Nobody is anonymous here, whatever `auth.anonymous` says.

use std::sync::Arc;

use stowage_oci::Name;

use super::identity::{Grants, Identity, Principal};
use super::rules::{Rules, Subject};
use super::{Access, Presented, Refusal};
use crate::operation::Action;

/// Somebody with a name. Only [`Access::recognize`] makes one.
#[derive(Debug)]
pub struct Caller {
    name: Arc<str>,
    rights: Rights,
}

#[derive(Debug)]
enum Rights {
    Rules(Arc<Rules>, Principal),
    Token(Grants),
}

impl Caller {
    /// The name that rules and logs know.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether they may do it on this repository.
    #[must_use]
    pub fn may(&self, action: Action, repository: &Name) -> bool {
        match &self.rights {
            Rights::Rules(rules, principal) => rules.granted(Some(principal), repository).contains(action),
            Rights::Token(grants) => grants.on(repository).contains(action),
        }
    }

    /// Whether they may do it on all repositories, those to come too. A token names repositories and never says so.
    #[must_use]
    pub fn may_everywhere(&self, action: Action) -> bool {
        match &self.rights {
            Rights::Rules(rules, principal) => rules.grants_everywhere(principal, action),
            Rights::Token(_) => false,
        }
    }

    /// Whether the subject is about them. Of who comes with a token the name is known and no group.
    #[must_use]
    pub fn is(&self, subject: &Subject) -> bool {
        match &self.rights {
            Rights::Rules(_, principal) => subject.covers(Some(principal)),
            Rights::Token(_) => {
                subject.covers(Some(&Principal { name: Arc::clone(&self.name), groups: Arc::default() }))
            }
        }
    }

    /// Goes on if they may do it on this repository.
    pub fn check(&self, action: Action, repository: &Name) -> Result<(), Refusal> {
        if self.may(action, repository) { Ok(()) } else { Err(Refusal::Denied) }
    }
}

impl Access {
    /// Who presents this credential. [`Refusal::Unauthorized`] for nobody, [`Refusal::NoAuthentication`] where nobody
    /// can have a name.
    pub async fn recognize(&self, presented: Presented<'_>) -> Result<Caller, Refusal> {
        let inforce = self.inforce.load_full();
        if inforce.rules.is_open() {
            return Err(Refusal::NoAuthentication);
        }
        let nobody = |error| Refusal::Unauthorized {
            challenge: inforce.realms.challenge(presented.host, None, error),
        };
        match self.identify(&inforce, presented).await.map_err(|unknown| unknown.refusal(nobody))? {
            Identity::User(principal) => {
                let name = Arc::clone(&principal.name);
                Ok(Caller { name, rights: Rights::Rules(Arc::clone(&inforce.rules), principal) })
            }
            Identity::Bearer { subject: Some(name), grants } => {
                Ok(Caller { name, rights: Rights::Token(grants) })
            }
            Identity::Anonymous | Identity::Bearer { subject: None, .. } => Err(nobody(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::auth::{Actions, Htpasswd, Policy, Realms, SigningKey, Snapshot};

    fn policy(name: &str, glob: &str, actions: &[Action]) -> Policy {
        Policy {
            name: name.into(),
            repositories: vec![glob.parse().unwrap()],
            subjects: vec![Subject::User(name.into())],
            actions: actions.iter().copied().collect(),
        }
    }

    fn access(rules: Rules) -> Access {
        let users = ["alice", "root"].map(|user| format!("{user}:{}", bcrypt::hash("pw", 4).unwrap()));
        Access::new(Snapshot {
            rules: Arc::new(rules),
            users: Htpasswd::parse("users", &users.join("\n")).unwrap(),
            realms: Realms::new("https://r.example", []),
            keys: SigningKey::ephemeral().unwrap(),
        })
    }

    async fn recognize(access: &Access, login: Option<&str>) -> Result<Caller, Refusal> {
        let header = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let authorization = header.as_deref().map(str::as_bytes);
        access.recognize(Presented { authorization, host: None, source }).await
    }

    #[tokio::test]
    async fn rights_are_those_of_the_rules() {
        let policies = vec![
            policy("alice", "team/**", &[Action::Administer]),
            policy("root", "**", &[Action::Administer]),
        ];
        let access = access(Rules::new(Actions::CONTENT, policies));
        let alice = recognize(&access, Some("alice:pw")).await.unwrap();
        let (team, other) = ("team/a".parse().unwrap(), "other".parse().unwrap());
        assert!(alice.may(Action::Administer, &team) && !alice.may(Action::Administer, &other));
        assert_eq!(alice.check(Action::Promote, &team), Err(Refusal::Denied), "no action implies another");
        assert!(!alice.may_everywhere(Action::Administer), "other repositories may come");
        let root = recognize(&access, Some("root:pw")).await.unwrap();
        assert!(root.may_everywhere(Action::Administer) && root.name() == "root");
    }

    #[tokio::test]
    async fn nobody_is_anonymous() {
        let access = access(Rules::new(Actions::ALL, Vec::new()));
        for login in [None, Some(":"), Some("alice:wrong")] {
            let refusal = recognize(&access, login).await.unwrap_err();
            assert!(matches!(refusal, Refusal::Unauthorized { .. }), "{login:?}: {refusal:?}");
        }
    }

    #[tokio::test]
    async fn without_authentication_nobody_has_a_name() {
        let refusal = recognize(&access(Rules::open()), Some("alice:pw")).await.unwrap_err();
        assert_eq!(refusal, Refusal::NoAuthentication);
    }
}
