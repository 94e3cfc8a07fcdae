// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Scopes: what a token is asked for, in the words of the token protocol.
//!
//! Pure. What is unknown or malformed is dropped, never an error (W-614).

use std::collections::BTreeMap;

use stowage_oci::Name;

use super::rules::Actions;
use crate::operation::{Action, MountSource, Opening, Operation};

/// The word for an action in scopes and tokens.
#[must_use]
pub(super) const fn word(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
        Action::Promote => "promote",
        Action::Administer => "administer",
    }
}

/// The action that a word means.
#[must_use]
pub(super) fn action(word: &str) -> Option<Action> {
    match word {
        "pull" => Some(Action::Pull),
        "push" => Some(Action::Push),
        "delete" => Some(Action::Delete),
        "promote" => Some(Action::Promote),
        "administer" => Some(Action::Administer),
        _ => None,
    }
}

/// What is asked for in all scopes of one request together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Actions on repositories.
    pub repositories: BTreeMap<Name, Actions>,
    /// The catalog.
    pub catalog: bool,
    /// For names of virtual repositories: what members call them.
    pub members: BTreeMap<Name, Vec<Name>>,
}

impl Wanted {
    /// Reads scopes `type[(class)]:name:actions`; the type ends at the first colon, the actions begin at the last.
    #[must_use]
    pub fn parse<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }

    /// The same, where `members` tells what the members of a virtual repository call a name: nobody asks for those,
    /// and the right is needed there, too.
    #[must_use]
    pub fn with_members(mut self, members: impl Fn(&Name) -> Vec<Name>) -> Self {
        let named = self.repositories.keys().map(|name| (name.clone(), members(name)));
        self.members = named.filter(|(_, members)| !members.is_empty()).collect();
        self
    }

    fn with(mut self, scope: &str) -> Self {
        let Some((kind, rest)) = scope.split_once(':') else { return self };
        let Some((name, actions)) = rest.rsplit_once(':') else { return self };
        match kind.split_once('(').map_or(kind, |(kind, _)| kind) {
            "registry" => self.catalog |= name == "catalog" && actions.split(',').any(|a| a == "*"),
            "repository" => {
                let actions = actions_of(actions);
                if let (Ok(name), false) = (name.parse::<Name>(), actions.is_empty()) {
                    let wanted = self.repositories.entry(name).or_default();
                    *wanted = wanted.or(actions);
                }
            }
            _ => {}
        }
        self
    }
}

fn actions_of(list: &str) -> Actions {
    // Clients say `*` to delete: what the admin port asks for is in no token that does not name it.
    let all = list.split(',').any(|word| word == "*").then_some(Actions::CONTENT);
    list.split(',').filter_map(action).collect::<Actions>().or(all.unwrap_or_default())
}

/// The scope that a client should ask a token for, to be allowed the operation (W-601). `None`: any token does.
#[must_use]
pub(super) fn offered(operation: &Operation) -> Option<String> {
    if let Operation::Catalog { .. } = operation {
        return Some("registry:catalog:*".to_owned());
    }
    let actions = match operation.action()? {
        Action::Pull => "pull",
        Action::Push => "pull,push",
        Action::Delete => "delete",
        // Nothing on the data port needs them.
        Action::Promote | Action::Administer => return None,
    };
    let scope = format!("repository:{}:{actions}", operation.repository()?);
    match mount_source(operation) {
        Some(from) => Some(format!("{scope} repository:{from}:pull")),
        None => Some(scope),
    }
}

fn mount_source(operation: &Operation) -> Option<&Name> {
    let Operation::OpenUpload { opening: Opening::Mount { from: MountSource::Repository(from), .. }, .. } =
        operation
    else {
        return None;
    };
    Some(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn wanted(scopes: &[&str]) -> Vec<(String, Actions)> {
        let wanted = Wanted::parse(scopes.iter().copied());
        wanted.repositories.into_iter().map(|(name, actions)| (name.to_string(), actions)).collect()
    }

    #[test]
    fn w614_unknown_types_actions_and_malformed_scopes_are_dropped() {
        assert_eq!(
            wanted(&["", "a", "repository:a", "plugin:a:pull", "repository:A:pull", "repository:a:fly"]),
            []
        );
        let pull = Actions::NONE.with(Action::Pull);
        assert_eq!(wanted(&["repository:a:fly,pull"]), [("a".to_owned(), pull)]);
    }

    #[test]
    fn w614_order_is_free_and_repeats_are_joined() {
        let both = Actions::NONE.with(Action::Pull).with(Action::Push);
        assert_eq!(wanted(&["repository:a:push,pull"]), [("a".to_owned(), both)]);
        assert_eq!(wanted(&["repository:a:push", "repository:a:pull"]), [("a".to_owned(), both)]);
        assert_eq!(wanted(&["repository(image):a:*"]), [("a".to_owned(), Actions::CONTENT)]);
    }

    #[test]
    fn w615_the_type_ends_at_the_first_colon_and_the_actions_begin_at_the_last() {
        assert_eq!(wanted(&["repository:localhost:5000/a:pull"]), []);
        assert!(Wanted::parse(["registry:catalog:*"]).catalog);
        assert!(!Wanted::parse(["registry:catalog:pull"]).catalog);
    }

    #[test]
    fn w601_the_scope_offered_fits_the_operation() {
        let repository: Name = "a/b".parse().unwrap();
        let digest: stowage_oci::Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let mount = Opening::Mount {
            digest,
            from: MountSource::Repository("c".parse().unwrap()),
            or: Box::new(Opening::Monolithic { digest }),
        };
        for (operation, scope) in [
            (Operation::Ping, None),
            (Operation::Catalog { page: crate::operation::Page::default() }, Some("registry:catalog:*")),
            (
                Operation::GetBlob { repository: repository.clone(), digest, head: true },
                Some("repository:a/b:pull"),
            ),
            (Operation::DeleteBlob { repository: repository.clone(), digest }, Some("repository:a/b:delete")),
            (
                Operation::OpenUpload { repository, opening: mount },
                Some("repository:a/b:pull,push repository:c:pull"),
            ),
        ] {
            assert_eq!(offered(&operation).as_deref(), scope);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            let _wanted = Wanted::parse([text.as_str()]);
        }
    }
}
