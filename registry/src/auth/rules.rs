// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who may do what: the access policies in force, and what everybody may do.
//!
//! Pure. Nothing is allowed that no rule grants; there is no rule that denies; no action implies another.

use std::fmt;
use std::sync::Arc;

use stowage_oci::{Glob, Name};

use super::identity::Principal;
use crate::operation::Action;

/// The name under which the right of everybody appears beside those of policies.
const EVERYBODY: &str = "auth.anonymous";

/// A set of actions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

impl Actions {
    /// No action.
    pub const NONE: Self = Self(0);
    /// What can be done with content on the data port.
    pub const CONTENT: Self = Self::NONE.with(Action::Pull).with(Action::Push).with(Action::Delete);
    /// Every action.
    pub const ALL: Self = Self::CONTENT.with(Action::Promote).with(Action::Administer);

    const EACH: [Action; 5] =
        [Action::Pull, Action::Push, Action::Delete, Action::Promote, Action::Administer];

    const fn bit(action: Action) -> u8 {
        match action {
            Action::Pull => 1,
            Action::Push => 2,
            Action::Delete => 4,
            Action::Promote => 8,
            Action::Administer => 16,
        }
    }

    /// This set and one action more.
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | Self::bit(action))
    }

    /// What is in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the action is in it.
    #[must_use]
    pub const fn contains(self, action: Action) -> bool {
        self.0 & Self::bit(action) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The actions, in the order pull, push, delete, promote, administer.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Self::EACH.into_iter().filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Whom a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The principal of this name.
    User(String),
    /// Every member of the group of this name.
    Group(String),
    /// Everybody, without a credential too.
    Anonymous,
    /// Everybody with a valid credential.
    Authenticated,
}

impl Subject {
    pub(super) fn covers(&self, who: Option<&Principal>) -> bool {
        match (self, who) {
            (Self::Anonymous, _) | (Self::Authenticated, Some(_)) => true,
            (Self::User(user), Some(principal)) => *user == *principal.name,
            (Self::Group(group), Some(principal)) => principal.groups.contains(group),
            (Self::Authenticated | Self::User(_) | Self::Group(_), None) => false,
        }
    }
}

/// Grants its subjects actions on repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name, for the audit line.
    pub name: Arc<str>,
    /// The repositories it covers.
    pub repositories: Vec<Glob>,
    /// Who is granted the actions.
    pub subjects: Vec<Subject>,
    /// What they may do.
    pub actions: Actions,
}

impl Policy {
    fn covers(&self, who: Option<&Principal>, repository: &Name) -> bool {
        self.repositories.iter().any(|glob| glob.matches(repository.as_str())) && self.concerns(who)
    }

    fn concerns(&self, who: Option<&Principal>) -> bool {
        self.subjects.iter().any(|subject| subject.covers(who))
    }
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    open: bool,
    everybody: Actions,
    everybody_name: Arc<str>,
    policies: Vec<Policy>,
    uncounted: Vec<Subject>,
}

impl Rules {
    /// What everybody may do on every repository, and the policies.
    #[must_use]
    pub fn new(everybody: Actions, policies: Vec<Policy>) -> Self {
        Self { open: false, everybody, everybody_name: EVERYBODY.into(), policies, uncounted: Vec::new() }
    }

    /// No authentication at all: everybody may do everything, credentials are not looked at.
    #[must_use]
    pub fn open() -> Self {
        Self { open: true, ..Self::new(Actions::ALL, Vec::new()) }
    }

    /// The same; what these pull does not count as pulled.
    #[must_use]
    pub fn not_counting(self, uncounted: Vec<Subject>) -> Self {
        Self { uncounted, ..self }
    }

    /// Whether what the principal (`None`: the anonymous) pulls counts as pulled.
    #[must_use]
    pub fn counts(&self, who: Option<&Principal>) -> bool {
        !self.uncounted.iter().any(|subject| subject.covers(who))
    }

    /// Whether credentials are not looked at.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// What the principal (`None`: the anonymous) may do with the repository.
    #[must_use]
    pub fn granted(&self, who: Option<&Principal>, repository: &Name) -> Actions {
        let granting = self.policies.iter().filter(|policy| policy.covers(who, repository));
        granting.fold(self.everybody, |actions, policy| actions.or(policy.actions))
    }

    /// The rules that grant the action: none of them means denied.
    #[must_use]
    pub fn granting(&self, who: Option<&Principal>, repository: &Name, action: Action) -> Vec<Arc<str>> {
        let everybody = self.everybody.contains(action).then(|| Arc::clone(&self.everybody_name));
        let policies = self
            .policies
            .iter()
            .filter(|policy| policy.actions.contains(action) && policy.covers(who, repository))
            .map(|policy| Arc::clone(&policy.name));
        everybody.into_iter().chain(policies).collect()
    }

    /// Whether a policy that covers every repository grants the principal the action.
    #[must_use]
    pub fn grants_everywhere(&self, who: &Principal, action: Action) -> bool {
        let covers_all = |policy: &&Policy| policy.repositories.iter().any(Glob::matches_everything);
        let granting = |policy: &Policy| policy.actions.contains(action) && policy.concerns(Some(who));
        self.policies.iter().filter(covers_all).any(granting)
    }

    /// The policies that let the principal pull anything, at most `limit`.
    #[must_use]
    pub fn pulling(&self, who: &Principal, limit: usize) -> Vec<Arc<str>> {
        let pulling = |policy: &&Policy| policy.actions.contains(Action::Pull) && policy.concerns(Some(who));
        self.policies.iter().filter(pulling).take(limit).map(|policy| Arc::clone(&policy.name)).collect()
    }

    /// Whether everybody, or one of the named policies, may pull the repository.
    #[must_use]
    pub fn pull_by(&self, policies: &[Arc<str>], repository: &Name) -> bool {
        let named = |policy: &Policy| policies.contains(&policy.name);
        let covers =
            |policy: &Policy| policy.repositories.iter().any(|glob| glob.matches(repository.as_str()));
        self.everybody.contains(Action::Pull)
            || self.policies.iter().any(|p| named(p) && p.actions.contains(Action::Pull) && covers(p))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn principal(name: &str, groups: &[&str]) -> Principal {
        Principal { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect() }
    }

    pub(crate) fn policy(name: &str, glob: &str, subject: Subject, actions: &[Action]) -> Policy {
        Policy {
            name: name.into(),
            repositories: vec![glob.parse().unwrap()],
            subjects: vec![subject],
            actions: actions.iter().copied().collect(),
        }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn what_no_rule_grants_is_denied() {
        let rules = Rules::new(Actions::NONE, Vec::new());
        assert_eq!(rules.granted(None, &name("a")), Actions::NONE);
        assert_eq!(rules.granted(Some(&principal("alice", &[])), &name("a")), Actions::NONE);
    }

    #[test]
    fn a_principal_may_do_the_union_of_all_rules() {
        let rules = Rules::new(
            Actions::NONE.with(Action::Pull),
            vec![
                policy("users", "team/**", Subject::User("alice".into()), &[Action::Push]),
                policy("groups", "team/x", Subject::Group("ops".into()), &[Action::Delete]),
            ],
        );
        let alice = principal("alice", &["ops"]);
        assert_eq!(rules.granted(Some(&alice), &name("team/x")), Actions::CONTENT);
        assert_eq!(
            rules.granted(Some(&principal("bob", &[])), &name("team/x")),
            [Action::Pull].into_iter().collect()
        );
        assert_eq!(rules.granting(Some(&alice), &name("team/x"), Action::Push), ["users".into()]);
        assert_eq!(rules.granting(Some(&alice), &name("team/x"), Action::Pull), ["auth.anonymous".into()]);
    }

    #[test]
    fn no_action_implies_another() {
        let rules =
            Rules::new(Actions::NONE, vec![policy("p", "**", Subject::Authenticated, &[Action::Push])]);
        let alice = principal("alice", &[]);
        assert!(rules.granting(Some(&alice), &name("a"), Action::Pull).is_empty());
        assert!(rules.granting(None, &name("a"), Action::Push).is_empty());
    }

    #[test]
    fn the_anonymous_subject_is_everybody() {
        let rules =
            Rules::new(Actions::NONE, vec![policy("p", "pub/**", Subject::Anonymous, &[Action::Pull])]);
        assert!(!rules.granted(None, &name("pub/a")).is_empty());
        assert!(!rules.granted(Some(&principal("alice", &[])), &name("pub/a")).is_empty());
    }
}
