// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Users and their password hashes, as Apache's htpasswd writes them: lines `user:hash`, and groups as lines
//! `group: user user`.
//!
//! Guarantees: only bcrypt and argon2id are taken; plain text or a weaker hash is an error that names file and
//! line. An unknown user costs the time of a known one.
//! Never: holds a password.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr as _;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;

use super::identity::Principal;

/// What unknown users are compared with when there is nobody else: a hash of cost 10, of a password nobody has.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuPh9yBvAa2nzqSRK0JNXLyRIHPE9mLHm";

/// One password hash.
#[derive(Clone)]
pub(super) enum Hash {
    Bcrypt(String),
    Argon2id(Box<PasswordHash>),
}

impl Hash {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with("$argon2id$") {
            let parsed = PasswordHash::new(text).ok()?;
            let complete = parsed.salt.is_some() && parsed.hash.is_some();
            return complete.then(|| Self::Argon2id(Box::new(parsed)));
        }
        let known = ["$2a$", "$2b$", "$2y$"].iter().any(|version| text.starts_with(version));
        (known && bcrypt::HashParts::from_str(text).is_ok()).then(|| Self::Bcrypt(text.to_owned()))
    }

    /// Whether it is the password's. Takes a good part of a second: never on a thread that serves.
    pub(super) fn is_of(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2id(hash) => {
                Argon2::default().verify_password(password.as_bytes(), hash.as_ref()).is_ok()
            }
        }
    }

    /// What tells this hash from another one, for the cache of verified results.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Bcrypt(hash) => hash.clone(),
            Self::Argon2id(hash) => hash.to_string(),
        }
    }
}

#[derive(Clone)]
struct User {
    principal: Principal,
    hash: Hash,
}

/// The users of a registry.
#[derive(Clone)]
pub struct Htpasswd {
    users: HashMap<String, User>,
    stranger: Hash,
}

/// Why a file of users or groups cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub struct HtpasswdError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No colon.
    #[error("expected user:hash")]
    NotAUser,
    /// No colon.
    #[error("expected group: user user")]
    NotAGroup,
    /// Plain text, MD5, SHA-1, crypt, or damaged.
    #[error(
        "the hash is neither bcrypt nor argon2id; write the line anew with htpasswd -B, or with an argon2id hash"
    )]
    UnknownHash,
    /// The name was there before.
    #[error("the same name again")]
    Repeated,
}

/// Lines that say something, with their number.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

impl Htpasswd {
    /// No users.
    #[must_use]
    pub fn empty() -> Self {
        let stranger = Hash::Bcrypt(NOBODY.to_owned());
        Self { users: HashMap::new(), stranger }
    }

    /// Reads the users. `file` names the source in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, HtpasswdError> {
        let mut all = Self::empty();
        for (line, content) in lines(text) {
            let error = |problem| HtpasswdError { file: file.to_owned(), line, problem };
            let (name, hash) = content.split_once(':').ok_or_else(|| error(Problem::NotAUser))?;
            if name.is_empty() {
                return Err(error(Problem::NotAUser));
            }
            let hash = Hash::parse(hash).ok_or_else(|| error(Problem::UnknownHash))?;
            if all.users.is_empty() {
                all.stranger = hash.clone();
            }
            let principal = Principal { name: name.into(), groups: [].into() };
            if all.users.insert(name.to_owned(), User { principal, hash }).is_some() {
                return Err(error(Problem::Repeated));
            }
        }
        Ok(all)
    }

    /// The same users as members of the groups that `text` lists. Who is no user is left out.
    pub fn with_groups(mut self, file: &str, text: &str) -> Result<Self, HtpasswdError> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (line, content) in lines(text) {
            let error = |problem| HtpasswdError { file: file.to_owned(), line, problem };
            let (group, members) = content.split_once(':').ok_or_else(|| error(Problem::NotAGroup))?;
            if group.trim().is_empty() {
                return Err(error(Problem::NotAGroup));
            }
            if groups.insert(group.trim(), members.split_whitespace().collect()).is_some() {
                return Err(error(Problem::Repeated));
            }
        }
        for user in self.users.values_mut() {
            let member = |members: &[&str]| members.contains(&&*user.principal.name);
            user.principal.groups =
                groups.iter().filter(|(_, m)| member(m)).map(|(group, _)| (*group).to_owned()).collect();
        }
        Ok(self)
    }

    /// The user of this name.
    pub(super) fn principal(&self, name: &str) -> Option<&Principal> {
        self.users.get(name).map(|user| &user.principal)
    }

    /// The hash to compare with; that of somebody else for an unknown name.
    pub(super) fn hash(&self, name: &str) -> &Hash {
        self.users.get(name).map_or(&self.stranger, |user| &user.hash)
    }
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Htpasswd({} users)", self.users.len())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    fn problem(text: &str) -> (usize, Problem) {
        let error = Htpasswd::parse("users", text).unwrap_err();
        (error.line, error.problem)
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash() {
        assert!(!Hash::parse(NOBODY).unwrap().is_of("x"));
    }

    #[test]
    fn bcrypt_and_argon2id_are_verified() {
        use argon2::password_hash::PasswordHasher as _;
        let argon = Argon2::default().hash_password(b"a:b").unwrap().to_string();
        let text = format!("# people\n\n{}bob:{argon}\r\n", line("alice", "secret"));
        let users = Htpasswd::parse("users", &text).unwrap();
        assert!(users.hash("alice").is_of("secret") && !users.hash("alice").is_of("Secret"));
        assert!(users.hash("bob").is_of("a:b") && !users.hash("bob").is_of("a"));
        assert!(users.principal("carol").is_none() && !users.hash("carol").is_of("x"));
    }

    #[test]
    fn a_plain_text_or_unknown_hash_is_an_error_that_names_file_and_line() {
        let good = line("alice", "x");
        for bad in [
            "bob:secret",
            "bob:$apr1$abc$def",
            "bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "bob:$2y$05$short",
            "bob:$argon2i$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
            "bob:$argon2id$v=19$m=4096,t=3,p=1",
            "bob:",
        ] {
            assert_eq!(problem(&format!("{good}{bad}")), (2, Problem::UnknownHash), "{bad}");
        }
        assert_eq!(problem("bob"), (1, Problem::NotAUser));
        assert_eq!(problem(&format!("{good}\n{good}")), (3, Problem::Repeated));
        let error = Htpasswd::parse("/etc/users", "bob:secret").unwrap_err().to_string();
        assert!(error.starts_with("/etc/users, line 1: ") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn groups_list_their_members() {
        let users = Htpasswd::parse("users", &line("alice", "x")).unwrap();
        let users = users.with_groups("groups", "ops: bob alice\ndev:alice\nnone: bob\n").unwrap();
        assert_eq!(&*users.principal("alice").unwrap().groups, ["dev".to_owned(), "ops".to_owned()]);
        let error = Htpasswd::empty().with_groups("groups", "ops alice").unwrap_err();
        assert_eq!((error.line, error.problem), (1, Problem::NotAGroup));
    }
}
