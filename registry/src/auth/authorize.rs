// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The decision: an operation and who asks for it, in; an [`Authorized`] or a refusal, out.
//!
//! Pure. A refusal depends on the rules and on what was asked, never on what exists (W-018, W-732).

use std::sync::Arc;

use stowage_oci::Name;

use super::identity::{Grants, Identity, Principal};
use super::rules::Rules;
use crate::operation::{Action, Operation};

/// An operation that may be done. Only [`authorize`] makes one, so nothing is dispatched that was not decided.
#[derive(Debug)]
pub struct Authorized {
    operation: Operation,
    subject: Option<Arc<str>>,
    granted_by: Vec<Arc<str>>,
    readable: Readable,
    counts: bool,
}

/// What the client may read beside the operation's own repository: sources of a mount, entries of the catalog.
#[derive(Debug)]
enum Readable {
    /// What the rules let the principal pull.
    Rules(Arc<Rules>, Option<Principal>),
    /// What the token names.
    Token(Grants),
    /// What the policies that the token names let anybody pull: for the catalog.
    Policies(Arc<Rules>, Vec<Arc<str>>),
}

impl Authorized {
    /// What may be done.
    #[must_use]
    pub const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// The name of the principal; `None` for the anonymous.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The rules that granted it, for the audit line. Empty where a token did: what granted the token was logged
    /// when it was made.
    #[must_use]
    pub fn granted_by(&self) -> &[Arc<str>] {
        &self.granted_by
    }

    /// Whether what is pulled counts as pulled.
    #[must_use]
    pub const fn counts(&self) -> bool {
        self.counts
    }

    /// Whether the client may read this repository: as the source of a mount (W-370 to W-372, W-375), or in the
    /// catalog (W-421).
    #[must_use]
    pub fn may_read(&self, repository: &Name) -> bool {
        match &self.readable {
            Readable::Rules(rules, who) => rules.granted(who.as_ref(), repository).contains(Action::Pull),
            Readable::Token(grants) => grants.on(repository).contains(Action::Pull),
            Readable::Policies(rules, policies) => rules.pull_by(policies, repository),
        }
    }

    /// Whether the client may read this repository as a member of the virtual one that it named (W-451).
    #[must_use]
    pub fn may_read_member(&self, repository: &Name) -> bool {
        self.may_in_member(Action::Pull, repository)
    }

    fn may_in_member(&self, action: Action, repository: &Name) -> bool {
        match &self.readable {
            Readable::Rules(rules, who) => rules.granted(who.as_ref(), repository).contains(action),
            Readable::Token(grants) => grants.on_member(repository).contains(action),
            Readable::Policies(..) => false,
        }
    }

    /// The same, done in the member of a virtual repository; `None`: not allowed there.
    fn done_in(self, member: &Name) -> Option<Self> {
        let allowed = self.operation.action().is_some_and(|action| self.may_in_member(action, member));
        allowed.then(|| Self { operation: self.operation.in_repository(member.clone()), ..self })
    }
}

/// Why an operation may not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No credential, and not everybody may.
    NoCredential,
    /// The bearer token does not allow it.
    InsufficientScope,
    /// The principal may not.
    Denied,
}

/// Decides whether `identity` may do `operation`; `member`: in which repository, if the one it is about is virtual. Then
/// the right is needed on both.
pub fn authorize(
    operation: Operation,
    member: Option<&Name>,
    identity: Identity,
    rules: &Arc<Rules>,
) -> Result<Authorized, Refused> {
    if rules.is_open() {
        let operation = match member {
            Some(member) => operation.in_repository(member.clone()),
            None => operation,
        };
        return Ok(everything(operation, rules));
    }
    let (decided, refused) = match identity {
        Identity::Anonymous => (anonymous(operation, rules), Refused::NoCredential),
        Identity::User(principal) => (user(operation, principal, rules), Refused::Denied),
        Identity::Bearer { subject, grants } => {
            (bearer(operation, subject, grants, rules), Refused::InsufficientScope)
        }
    };
    match member {
        Some(member) => decided?.done_in(member).ok_or(refused),
        None => decided,
    }
}

fn everything(operation: Operation, rules: &Arc<Rules>) -> Authorized {
    let readable = Readable::Rules(Arc::clone(rules), None);
    Authorized { operation, subject: None, granted_by: Vec::new(), readable, counts: rules.counts(None) }
}

fn anonymous(operation: Operation, rules: &Arc<Rules>) -> Result<Authorized, Refused> {
    let granted_by = granting(&operation, None, rules).filter(|rules| !rules.is_empty());
    // Ping and the catalog are for those who present something, whatever everybody may do (W-121, W-421).
    let granted_by = granted_by.ok_or(Refused::NoCredential)?;
    let readable = Readable::Rules(Arc::clone(rules), None);
    Ok(Authorized { operation, subject: None, granted_by, readable, counts: rules.counts(None) })
}

fn user(operation: Operation, principal: Principal, rules: &Arc<Rules>) -> Result<Authorized, Refused> {
    let granted_by = match granting(&operation, Some(&principal), rules) {
        Some(none) if none.is_empty() => return Err(Refused::Denied),
        Some(granting) => granting,
        // Any principal may ping, and read what the catalog shows of its own (W-123, W-421).
        None => Vec::new(),
    };
    let subject = Some(Arc::clone(&principal.name));
    let counts = rules.counts(Some(&principal));
    let readable = Readable::Rules(Arc::clone(rules), Some(principal));
    Ok(Authorized { operation, subject, granted_by, readable, counts })
}

fn bearer(
    operation: Operation,
    subject: Option<Arc<str>>,
    grants: Grants,
    rules: &Arc<Rules>,
) -> Result<Authorized, Refused> {
    let allowed = match (&operation, operation.repository(), operation.action()) {
        (_, Some(repository), Some(action)) => grants.on(repository).contains(action),
        (Operation::Catalog { .. }, _, _) => grants.catalog,
        _ => true,
    };
    if !allowed {
        return Err(Refused::InsufficientScope);
    }
    let counts = !grants.uncounted;
    let readable = match &operation {
        Operation::Catalog { .. } => Readable::Policies(Arc::clone(rules), grants.policies),
        _ => Readable::Token(grants),
    };
    Ok(Authorized { operation, subject, granted_by: Vec::new(), readable, counts })
}

/// The rules that grant the operation on its repository; `None` if it is not about one.
fn granting(operation: &Operation, who: Option<&Principal>, rules: &Rules) -> Option<Vec<Arc<str>>> {
    Some(rules.granting(who, operation.repository()?, operation.action()?))
}

#[cfg(test)]
mod tests {
    use stowage_oci::{Algorithm, Digest};

    use super::super::rules::tests::{policy, principal};
    use super::super::rules::{Actions, Subject};
    use super::*;
    use crate::operation::{Opening, Page};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn digest() -> Digest {
        format!("sha256:{}", "0".repeat(64)).parse().unwrap()
    }

    fn get(repository: &str) -> Operation {
        Operation::GetBlob { repository: name(repository), digest: digest(), head: false }
    }

    fn push(repository: &str) -> Operation {
        let opening = Opening::Session { algorithm: Algorithm::Sha256 };
        Operation::OpenUpload { repository: name(repository), opening }
    }

    fn delete(repository: &str) -> Operation {
        Operation::DeleteBlob { repository: name(repository), digest: digest() }
    }

    fn catalog() -> Operation {
        Operation::Catalog { page: Page::default() }
    }

    fn rules() -> Arc<Rules> {
        Arc::new(Rules::new(
            Actions::NONE,
            vec![
                policy("public", "pub/**", Subject::Anonymous, &[Action::Pull]),
                policy("team", "team/**", Subject::User("alice".into()), &[Action::Pull, Action::Push]),
            ],
        ))
    }

    fn user(name: &str) -> Identity {
        Identity::User(principal(name, &[]))
    }

    fn token(repositories: &[(&str, Actions)]) -> Identity {
        let repositories = repositories.iter().map(|(text, actions)| (name(text), *actions)).collect();
        Identity::Bearer {
            subject: Some("alice".into()),
            grants: Grants { repositories, ..Grants::default() },
        }
    }

    fn refused(operation: Operation, identity: Identity) -> Option<Refused> {
        authorize(operation, None, identity, &rules()).err()
    }

    #[test]
    fn w605_the_anonymous_are_served_what_everybody_may_do_else_challenged() {
        assert_eq!(refused(get("pub/a"), Identity::Anonymous), None);
        for operation in [get("team/a"), push("pub/a"), delete("pub/a"), Operation::Ping, catalog()] {
            assert_eq!(refused(operation, Identity::Anonymous), Some(Refused::NoCredential));
        }
    }

    #[test]
    fn w607_a_token_without_the_action_is_refused_whatever_exists() {
        let pull = Actions::NONE.with(Action::Pull);
        assert_eq!(refused(get("team/a"), token(&[("team/a", pull)])), None);
        for operation in [push("team/a"), get("team/b"), get("pub/a"), catalog()] {
            assert_eq!(refused(operation, token(&[("team/a", pull)])), Some(Refused::InsufficientScope));
        }
    }

    #[test]
    fn w609_w106_a_principal_without_the_right_is_denied() {
        assert_eq!(refused(push("team/a"), user("alice")), None);
        for operation in [delete("team/a"), get("other")] {
            assert_eq!(refused(operation, user("alice")), Some(Refused::Denied));
        }
    }

    #[test]
    fn w602_push_alone_is_enough_to_upload() {
        let push_only = Actions::NONE.with(Action::Push);
        assert_eq!(refused(push("team/a"), token(&[("team/a", push_only)])), None);
    }

    #[test]
    fn w121_w122_w123_a_ping_wants_a_credential_unless_there_is_no_authentication() {
        assert_eq!(refused(Operation::Ping, Identity::Anonymous), Some(Refused::NoCredential));
        assert_eq!(refused(Operation::Ping, user("nobody")), None);
        assert_eq!(refused(Operation::Ping, token(&[])), None);
        let open = Arc::new(Rules::open());
        for operation in [Operation::Ping, catalog(), delete("a")] {
            assert!(authorize(operation, None, Identity::Anonymous, &open).is_ok());
        }
    }

    #[test]
    fn w371_w372_w375_a_mount_reads_only_what_the_client_may_pull() {
        let pull = Actions::NONE.with(Action::Pull);
        let both = pull.with(Action::Push);
        let allowed = authorize(push("team/a"), None, user("alice"), &rules()).unwrap();
        assert!(allowed.may_read(&name("team/b")) && allowed.may_read(&name("pub/a")));
        assert!(!allowed.may_read(&name("other")));
        let allowed =
            authorize(push("team/a"), None, token(&[("team/a", both), ("x", pull)]), &rules()).unwrap();
        assert!(allowed.may_read(&name("x")) && !allowed.may_read(&name("team/b")));
    }

    #[test]
    fn w421_the_catalog_shows_what_the_principal_may_pull() {
        let shown = |identity| {
            let allowed = authorize(catalog(), None, identity, &rules()).unwrap();
            ["pub/a", "team/a", "other"].map(|text| allowed.may_read(&name(text)))
        };
        assert_eq!(shown(user("alice")), [true, true, false]);
        assert_eq!(shown(user("bob")), [true, false, false]);
        let policies = vec!["public".into(), "team".into()];
        let grants = Grants { catalog: true, policies, ..Grants::default() };
        assert_eq!(shown(Identity::Bearer { subject: None, grants }), [true, true, false]);
    }

    #[test]
    fn the_rules_that_granted_are_named_for_the_audit_line() {
        let allowed = authorize(push("team/a"), None, user("alice"), &rules()).unwrap();
        assert_eq!(allowed.granted_by(), ["team".into()]);
        assert_eq!((allowed.subject(), allowed.operation()), (Some("alice"), &push("team/a")));
    }

    #[test]
    fn w451_w609_what_is_done_in_a_member_needs_the_right_on_both_names() {
        let member = name("team/a");
        let done = |identity| {
            let allowed = authorize(push("team/all"), Some(&member), identity, &rules());
            allowed.map(|allowed| allowed.operation().repository().cloned())
        };
        assert_eq!(done(user("alice")), Ok(Some(member.clone())));
        assert_eq!(done(user("bob")), Err(Refused::Denied));
        assert_eq!(done(Identity::Anonymous), Err(Refused::NoCredential));
        let push_only = Actions::NONE.with(Action::Push);
        let Identity::Bearer { subject, mut grants } = token(&[("team/all", push_only)]) else {
            unreachable!()
        };
        let bearer = |grants: &Grants| Identity::Bearer { subject: subject.clone(), grants: grants.clone() };
        assert_eq!(
            done(bearer(&grants)),
            Err(Refused::InsufficientScope),
            "the token says nothing of the member"
        );
        grants.members = [(member.clone(), push_only)].into();
        assert_eq!(done(bearer(&grants)), Ok(Some(member.clone())));
        let direct = authorize(push("team/a"), None, bearer(&grants), &rules());
        assert_eq!(direct.err(), Some(Refused::InsufficientScope), "only through the virtual repository");
    }
}
