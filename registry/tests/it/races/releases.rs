// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Immutable tags: whoever comes first names one, nobody gives it another digest, and the same digest may be pushed
//! again. New ones are opened all the time, so that first pushes meet; old ones end by an administrator's hand.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;

use rand::Rng as _;
use stowage_oci::{Digest, Name, Tag, TagSelection, TagsWanted};
use stowage_registry::domain::{Domain, Error, Immutability, ImmutabilityRule};

use super::history::Which;
use super::world::{Actor, World};

/// How they begin.
const PREFIX: &str = "once-";
/// How many of a repository there are at a time.
const OPEN: usize = 4;

/// What replicas are told.
pub(super) fn rules() -> Immutability {
    Immutability(vec![ImmutabilityRule {
        name: "once".to_owned(),
        repositories: vec!["**".parse().unwrap()],
        tags: TagSelection {
            wanted: TagsWanted::Globs(vec![format!("{PREFIX}*").parse().unwrap()]),
            ..TagSelection::default()
        },
        signature_tags: false,
    }])
}

pub(super) fn is_immutable(tag: &Tag) -> bool {
    tag.as_str().starts_with(PREFIX)
}

/// All immutable tags of a run, and what each was seen to name.
#[derive(Default)]
pub(super) struct Releases(Mutex<State>);

#[derive(Default)]
struct State {
    given: u32,
    open: HashMap<Name, VecDeque<Tag>>,
    named: HashMap<Which, Digest>,
    retired: HashSet<Which>,
}

impl Releases {
    /// One to push to, mostly the newest: it may have no digest yet.
    pub(super) fn to_push(&self, actor: &mut Actor, repository: &Name) -> Tag {
        let mut state = self.0.lock().unwrap();
        let State { given, open, .. } = &mut *state;
        let open = open.entry(repository.clone()).or_default();
        if open.is_empty() || actor.chance(0.2) {
            *given += 1;
            open.push_back(format!("{PREFIX}{given}").parse().unwrap());
        }
        let newest = open.len() - 1;
        let index = if actor.chance(0.7) { newest } else { actor.random.random_range(0..=newest) };
        open[index].clone()
    }

    /// One to pull, if there is one.
    pub(super) fn to_pull(&self, actor: &mut Actor, repository: &Name) -> Option<Tag> {
        let state = self.0.lock().unwrap();
        let open = state.open.get(repository).filter(|open| !open.is_empty())?;
        Some(open[actor.random.random_range(0..open.len())].clone())
    }

    /// What these tags name for certain, of those that are immutable.
    pub(super) fn named(&self, repository: &Name, tags: &[Tag]) -> HashMap<Tag, Digest> {
        let state = self.0.lock().unwrap();
        let digest = |tag: &Tag| state.named.get(&(repository.clone(), tag.clone())).copied();
        tags.iter().filter_map(|tag| Some((tag.clone(), digest(tag)?))).collect()
    }

    /// Why it cannot be that the tag names the digest, as somebody was told: it named another.
    pub(super) fn names(&self, which: &Which, digest: Digest) -> Result<(), String> {
        let mut state = self.0.lock().unwrap();
        if !is_immutable(&which.1) || state.retired.contains(which) {
            return Ok(());
        }
        match *state.named.entry(which.clone()).or_insert(digest) {
            same if same == digest => Ok(()),
            other => Err(format!("an immutable tag named {other}, and now {digest}")),
        }
    }

    /// Whether it is the administrator's now: of those nothing is promised.
    pub(super) fn is_retired(&self, which: &Which) -> bool {
        self.0.lock().unwrap().retired.contains(which)
    }

    /// The oldest one, if there are enough: from now on nothing is promised of it.
    fn retire(&self, repository: &Name) -> Option<Tag> {
        let mut state = self.0.lock().unwrap();
        let open = state.open.get_mut(repository)?;
        let oldest = if open.len() > OPEN { open.pop_front() } else { None }?;
        state.retired.insert((repository.clone(), oldest.clone()));
        Some(oldest)
    }
}

/// Whoever pushed was told which of the tags were `refused`; all others name the digest now. `known`: what they
/// named before it began.
pub(super) fn judge_push(
    world: &World,
    repository: &Name,
    (tags, refused): (&[Tag], &[Tag]),
    digest: Digest,
    known: &HashMap<Tag, Digest>,
) {
    for tag in tags.iter().filter(|tag| is_immutable(tag)) {
        let which = (repository.clone(), tag.clone());
        if refused.contains(tag) {
            judge_refusal(world, &which, digest, known.get(tag).copied());
        } else {
            world.count("immutable tags set");
            if let Err(why) = world.releases.names(&which, digest) {
                world.violation(format!("push to {repository}:{tag}: {why}"));
            }
        }
    }
}

fn judge_refusal(world: &World, which: &Which, digest: Digest, known: Option<Digest>) {
    world.count("immutable tags refused");
    if world.releases.is_retired(which) {
        return;
    }
    let (repository, tag) = which;
    if known == Some(digest) {
        world.violation(format!("immutable {repository}:{tag} names {digest}, and was refused to it"));
    } else if !world.history.is_contested(which, digest) {
        world.violation(format!("immutable {repository}:{tag} was refused to {digest}, which is the first"));
    }
}

/// The rules are lifted until it is dropped.
struct Lifted(Domain);

impl Lifted {
    fn of(domain: &Domain) -> Self {
        domain.set_immutability(Immutability::default());
        Self(domain.clone())
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        self.0.set_immutability(rules());
    }
}

/// An administrator takes the rules away from a replica and deletes what has become old.
pub(super) async fn retire(world: &World, actor: &mut Actor, repository: &Name) {
    let Some(tag) = world.releases.retire(repository) else { return };
    let _lifted = Lifted::of(&actor.domain);
    match actor.domain.delete_tag(repository, &tag).await {
        Ok(()) => world.count("immutable tags retired"),
        Err(error) => super::clients::judge(world, "delete of an immutable tag", &error),
    }
}

/// A client deletes an immutable tag: that is refused, if it is there.
pub(super) async fn delete_in_vain(world: &World, actor: &mut Actor, repository: &Name) {
    let Some(tag) = world.releases.to_pull(actor, repository) else { return };
    match actor.domain.delete_tag(repository, &tag).await {
        Ok(()) => world.violation(format!("immutable {repository}:{tag} was deleted by a client")),
        Err(Error::TagImmutable { .. }) => world.count("deletes of immutable tags refused"),
        Err(error) => super::clients::judge(world, "delete of an immutable tag", &error),
    }
}

/// For whoever may delete everything.
pub(super) fn lift(domain: &Domain) {
    domain.set_immutability(Immutability::default());
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    #[test]
    fn an_immutable_tag_names_one_digest_until_it_is_retired() {
        let releases = Releases::default();
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let which: Which = ("a".parse().unwrap(), "once-1".parse().unwrap());
        let other: Which = ("a".parse().unwrap(), "latest".parse().unwrap());
        assert!(rules().covering(&which.0, &which.1).is_some());
        assert!(rules().covering(&other.0, &other.1).is_none());
        releases.names(&which, digest("one")).unwrap();
        releases.names(&which, digest("one")).unwrap();
        releases.names(&which, digest("two")).unwrap_err();
        releases.names(&other, digest("one")).unwrap();
        releases.names(&other, digest("two")).unwrap();
        releases.0.lock().unwrap().retired.insert(which.clone());
        releases.names(&which, digest("two")).unwrap();
    }
}
