// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What both databases queue: from what a row was to the steps that undo it in the bucket.
//!
//! `+key` writes an empty object, `-key` removes one, in this order. Pure.
//! A record that might be believed is marked before it is removed, so that a listing in between, or a late
//! repetition of its PUT, shows nothing. What is superseded, or below a tombstone, needs no marker.

use stowage_oci::{Digest, Name, Tag};

use super::{Location, ManifestFacts, Plan, TagRecord};
use crate::key::{Form, Generation, Key, Version};

/// The lane in which the removals of one tag run strictly in the order they were queued.
pub(super) fn lane(repository: &Name, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

/// Writes an empty object.
pub(super) fn write(key: &Key) -> String {
    format!("+{key}")
}

/// Removes an object.
pub(super) fn remove(key: &Key) -> String {
    format!("-{key}")
}

/// Takes the data of a blob away: what says that it is there first, the bytes last.
pub(super) fn remove_blob(digest: Digest, location: &Location) -> Vec<String> {
    let mut steps = vec![remove(&location.blob_key(digest))];
    if location.form != Form::Inline {
        steps.push(remove(&location.data_key(digest)));
    }
    steps
}

/// The empty record that shows a blob to a repository.
pub(super) fn remove_link(repository: &Name, digest: Digest, generation: Generation) -> String {
    remove(&Key::Link { repository: repository.clone(), digest, generation })
}

/// Takes a manifest record back that might be believed.
pub(super) fn withdraw_manifest(
    repository: &Name,
    facts: &ManifestFacts,
    generation: Generation,
) -> Vec<String> {
    let digest = facts.digest;
    let mut steps = vec![
        write(&Key::ManifestDeleted { repository: repository.clone(), digest, generation }),
        remove(&Key::Manifest { repository: repository.clone(), digest, generation }),
    ];
    let referrer = |subject| Key::Referrer { repository: repository.clone(), subject, digest, generation };
    steps.extend(facts.subject.map(|subject| remove(&referrer(subject))));
    steps
}

/// Takes a tag record back that might be the highest of its tag.
pub(super) fn withdraw_tag(repository: &Name, record: &TagRecord, target: Digest) -> Vec<String> {
    let TagRecord { tag, version, generation } = record.clone();
    let withdrawn = Key::TagWithdrawn {
        repository: repository.clone(),
        tag: tag.clone(),
        version,
        generation,
        target: Some(target),
    };
    vec![write(&withdrawn), remove(&tag_key(repository, &tag, version, generation, Some(target)))]
}

/// One record of a tag; without a target it is a tombstone.
pub(super) fn tag_key(
    repository: &Name,
    tag: &Tag,
    version: Version,
    generation: Generation,
    target: Option<Digest>,
) -> Key {
    Key::Tag { repository: repository.clone(), tag: tag.clone(), version, generation, target }
}

/// The keys that a manifest push of `generation` writes; `facts` is `None` when it writes no manifest record.
pub(super) fn intended_keys(
    repository: &Name,
    facts: Option<&ManifestFacts>,
    generation: Generation,
    tags: &[TagRecord],
    target: Digest,
) -> Vec<String> {
    let repository = || repository.clone();
    let records = facts.into_iter().flat_map(|facts| {
        let digest = facts.digest;
        let referrer = move |subject| Key::Referrer { repository: repository(), subject, digest, generation };
        let manifest = Key::Manifest { repository: repository(), digest, generation };
        std::iter::once(manifest).chain(facts.subject.map(referrer))
    });
    let tags = tags
        .iter()
        .map(|record| tag_key(&repository(), &record.tag, record.version, record.generation, Some(target)));
    records.chain(tags).map(|key| key.to_string()).collect()
}

/// What an upload may have left in the bucket.
#[derive(Clone, Debug)]
pub(super) struct Leftovers {
    /// Its generation.
    pub(super) generation: Generation,
    /// Whether a multipart upload was begun under it.
    pub(super) multipart: bool,
    /// The leases that may have staged something.
    pub(super) leases: Vec<u32>,
    /// How it was to be closed, and in which repository.
    pub(super) plan: Option<(Name, Plan)>,
    /// What a blob row says of this generation by now: that data is live and stays.
    pub(super) kept: Option<Form>,
    /// Whether a link row names the generation by now.
    pub(super) linked: bool,
}

impl Leftovers {
    /// Removes all of it but what became live.
    pub(super) fn steps(&self) -> Vec<String> {
        let generation = self.generation;
        let mut steps = Vec::new();
        if let Some((repository, plan)) = &self.plan {
            let location = Location { generation, form: plan.form, size: plan.size };
            if !self.linked {
                steps.push(remove_link(repository, plan.digest, generation));
            }
            if self.kept.is_none() {
                steps.push(remove(&location.blob_key(plan.digest)));
            }
        }
        if self.multipart && self.kept != Some(Form::Upload) {
            steps.push(remove(&Key::Upload { generation }));
        }
        let mut leases = self.leases.clone();
        leases.sort_unstable();
        leases.dedup();
        leases.retain(|lease| self.kept != Some(Form::Tail(*lease)));
        steps.extend(leases.into_iter().map(|lease| remove(&Key::UploadTail { generation, lease })));
        steps
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    fn leftovers(plan: Form) -> Leftovers {
        let plan = Plan { digest: Digest::of(Algorithm::Sha256, b"x"), form: plan, size: 1 };
        Leftovers {
            generation: Generation::at(1),
            multipart: true,
            leases: vec![2, 1, 2],
            plan: Some(("a/b".parse().unwrap(), plan)),
            kept: None,
            linked: false,
        }
    }

    #[test]
    fn of_an_upload_that_ends_nothing_stays() {
        let steps = leftovers(Form::Upload).steps();
        assert_eq!(steps.len(), 5, "{steps:?}");
        assert!(steps.iter().all(|step| step.starts_with('-')));
    }

    #[test]
    fn what_became_live_meanwhile_stays() {
        let live = Leftovers { kept: Some(Form::Tail(2)), linked: true, ..leftovers(Form::Tail(2)) };
        let steps = live.steps();
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert!(
            !steps.iter().any(|step| step.rsplit('.').next() == Some("t2") || step.contains("/~b/")),
            "{steps:?}"
        );
    }
}
