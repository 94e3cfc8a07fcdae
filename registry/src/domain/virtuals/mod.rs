// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! One path over several sources: repositories of ours and mirrors, by precedence.
//!
//! A virtual repository has nothing of its own. A name below its path is resolved to what its members call it
//! ([`names`]), and the members are asked as anybody asks them: what mirrors fetch is kept, counted and compared as
//! ever. A tag is what a pin says, else that of the first member that has it, content by digest that of any, lists are joined. What is written
//! is written to one member.
//! Guarantees: no member is asked that the client may not read. While mirrors may not shadow our names, none is asked
//! for a tag of a name that a member of ours has, whoever asks. A member that fails is passed over if another has what
//! is wanted; it never makes something unknown that could not be looked for.
//! Never: leads to another virtual repository. A member is one of ours or a mirror.

mod lists;
mod names;
mod pull;
mod push;

use std::sync::Arc;

use stowage_oci::{Digest, Glob, Name, Tag};

pub use names::{Combined, Within};

use super::mirror::{Mirror, MirrorResult, Mirrored};
use super::{Domain, Error};

/// A virtual repository, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualSettings {
    /// What it is called.
    pub name: String,
    /// What its names begin with.
    pub path: Name,
    /// Its members, by precedence.
    pub members: Vec<Member>,
    /// Which tags it lists.
    pub listing: Listing,
    /// Whether mirrors may answer for names of ours.
    pub shadowing: Shadowing,
    /// Tags that name what is said here.
    pub pins: Vec<Pin>,
    /// Whether it answers at all.
    pub is_suspended: bool,
}

/// A tag that names one manifest, whatever members have by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The name below the path.
    pub repository: Name,
    /// The tag.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
}

/// A member of a virtual repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub source: MemberSource,
    /// The names that it is asked for; all if there are none.
    pub include: Vec<Glob>,
    /// The names that it is not asked for.
    pub exclude: Vec<Glob>,
    /// Whether what is pushed goes to it.
    pub takes_pushes: bool,
}

/// Where a member's repositories are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberSource {
    /// Below this prefix, here.
    Local(Name),
    /// Below this prefix, to which a mirror copies: here, and not ours.
    Copied(Name),
    /// Below the path of the mirror of this name.
    Mirror(String),
}

/// Which tags of a name are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Those of the first member that has the name.
    FirstMember,
    /// Those of all members.
    Merged,
}

/// Whether a mirror may answer for a name that a member of ours has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadowing {
    /// It is not asked for tags of such a name.
    Forbidden,
    /// It may, by precedence.
    Allowed,
}

/// All virtual repositories. Their paths lie neither within one another nor within those of mirrors.
#[derive(Clone, Debug, Default)]
pub struct Virtuals(Vec<Arc<VirtualSettings>>);

impl From<Vec<VirtualSettings>> for Virtuals {
    fn from(settings: Vec<VirtualSettings>) -> Self {
        Self(settings.into_iter().map(Arc::new).collect())
    }
}

/// Where a member has what is wanted.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a repository of ours.
    Local(Name),
    /// In one to which a mirror copies.
    Copied(Name),
    /// In one of a mirror.
    Mirror(Mirrored),
}

impl Source {
    /// The name under which it is stored.
    #[must_use]
    pub const fn stored(&self) -> &Name {
        match self {
            Self::Local(name) | Self::Copied(name) => name,
            Self::Mirror(at) => &at.stored,
        }
    }
}

/// What asking the members came to.
#[derive(Debug)]
pub struct Joined<T, E = Error> {
    /// What they have.
    pub answer: Result<T, E>,
    /// Whether a member could not be asked, so that it might have been another answer.
    pub is_partial: bool,
    /// Each mirror that was asked, in this order, and how it answered.
    pub mirrors: Vec<(Arc<Mirror>, MirrorResult)>,
}

/// Asking one member after the other.
struct Search<T> {
    found: Option<T>,
    failure: Option<Error>,
    mirrors: Vec<(Arc<Mirror>, MirrorResult)>,
}

impl<T> Search<T> {
    const fn new() -> Self {
        Self { found: None, failure: None, mirrors: Vec::new() }
    }

    /// Takes what a member says. Whether it has what is wanted.
    fn take(&mut self, answer: Result<T, Error>) -> bool {
        match answer {
            Ok(found) => self.found = Some(found),
            Err(
                Error::NameUnknown | Error::ManifestUnknown | Error::BlobUnknown | Error::Quarantined { .. },
            ) => {}
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a member is passed over");
                self.failure.get_or_insert(error);
            }
        }
        self.found.is_some()
    }

    /// Takes what a mirror says.
    fn take_mirrored(&mut self, at: &Mirrored, (answer, result): (Result<T, Error>, MirrorResult)) -> bool {
        self.mirrors.push((Arc::clone(&at.mirror), result));
        self.take(answer)
    }

    /// Takes what is stored of a mirror: it has to be asked yet if that is nothing.
    fn take_stored(&mut self, at: &Mirrored, stored: Result<T, Error>) -> bool {
        if stored.is_ok() {
            self.mirrors.push((Arc::clone(&at.mirror), MirrorResult::Hit));
        }
        self.take(stored)
    }

    /// What it came to; `unknown` if every member could be asked and none has it.
    fn end(self, unknown: Error) -> Joined<T> {
        let Self { found, failure, mirrors } = self;
        let is_partial = failure.is_some();
        let answer = found.ok_or_else(|| failure.unwrap_or(unknown));
        Joined { answer, is_partial, mirrors }
    }
}

impl Domain {
    /// Serves these virtual repositories from now on.
    pub fn set_virtuals(&self, settings: Vec<VirtualSettings>) {
        self.virtuals.store(Arc::new(settings.into()));
    }

    /// The virtual repositories.
    #[must_use]
    pub fn virtuals(&self) -> Arc<Virtuals> {
        self.virtuals.load_full()
    }

    /// Each virtual repository whose path hides repositories of ours, with one of these.
    pub async fn hidden_repositories(&self) -> Result<Vec<(String, Name)>, Error> {
        let mut hidden = Vec::new();
        for settings in &self.virtuals().0 {
            let path = settings.path.as_str();
            let below = self.meta.repositories_below(&format!("{path}/"), None, 1).await?;
            let at = self.meta.repositories_below(path, None, 1).await?;
            let found = at.into_iter().find(|name| *name == settings.path).or(below.into_iter().next());
            hidden.extend(found.map(|name| (settings.name.clone(), name)));
        }
        Ok(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Error {
        Error::Stopping
    }

    #[test]
    fn w434_a_member_in_error_is_passed_over_and_never_makes_something_unknown() {
        let searched = |answers: Vec<Result<u8, Error>>| {
            let mut search = Search::new();
            for answer in answers {
                if search.take(answer) {
                    break;
                }
            }
            let joined = search.end(Error::ManifestUnknown);
            (joined.answer.map_err(|error| error.to_string()), joined.is_partial)
        };
        assert_eq!(searched(vec![Ok(1), Ok(2)]), (Ok(1), false));
        assert_eq!(searched(vec![Err(Error::ManifestUnknown), Ok(2)]), (Ok(2), false));
        assert_eq!(searched(vec![Err(away()), Ok(2)]), (Ok(2), true));
        let (failed, unknown) = (away().to_string(), Error::ManifestUnknown.to_string());
        assert_eq!(searched(vec![Err(away()), Err(Error::NameUnknown)]), (Err(failed), true));
        assert_eq!(searched(vec![Err(Error::NameUnknown)]), (Err(unknown), false));
    }
}
