// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A history taken apart into registers: each tag holds a digest or nothing, each manifest is there or not.
//!
//! A push by tag writes both, a deletion of a manifest empties every tag that holds it, a list reads all tags of its
//! repository. Registers are judged one by one: a history is linearizable if that of each register is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stowage_oci::Digest;

use super::linearizable::{Effect, Expect, Step};
use super::mirror::Mirrored;
use super::record::{Action, Fate, Moment, Operation, Outcome, Reference};

/// What a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject<'a> {
    Tag(&'a str),
    Manifest(Digest),
}

/// The name of a register: its repository and what it is there.
pub(super) type Name<'a> = (&'a str, Subject<'a>);

/// One register and all that happened to it.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// The numbers of the digests that it held.
    values: HashMap<Digest, u32>,
    pub(super) steps: Vec<Step>,
}

impl Register {
    fn value(&mut self, digest: Digest) -> u32 {
        let next =
            u32::try_from(self.values.len()).expect("fewer values than operations, which are in memory");
        *self.values.entry(digest).or_insert(next)
    }
}

/// All registers of a history.
pub(super) fn registers<'a>(
    operations: &'a [Operation],
    mirrored: &Mirrored<'_>,
) -> BTreeMap<Name<'a>, Register> {
    let mut index = Index { names: Names::of(operations), mirrored, registers: BTreeMap::new() };
    for (at, operation) in operations.iter().enumerate() {
        index.add(at, operation);
    }
    index.registers
}

/// Which tags there may be, and where a digest may be found.
struct Names<'a> {
    tags: HashMap<&'a str, BTreeSet<&'a str>>,
    tags_of: HashMap<(&'a str, Digest), BTreeSet<&'a str>>,
    manifests: BTreeSet<(&'a str, Digest)>,
}

impl<'a> Names<'a> {
    fn of(operations: &'a [Operation]) -> Self {
        let (mut tags, mut tags_of) = (HashMap::<_, BTreeSet<_>>::new(), HashMap::<_, BTreeSet<_>>::new());
        let mut manifests = BTreeSet::new();
        for operation in operations {
            let repository = operation.action.repository();
            match &operation.action {
                Action::PushManifest { digest, tag, .. } => {
                    manifests.insert((repository, *digest));
                    if let Some(tag) = tag {
                        tags.entry(repository).or_default().insert(tag.as_str());
                        tags_of.entry((repository, *digest)).or_default().insert(tag.as_str());
                    }
                }
                Action::DeleteTag { tag, .. }
                | Action::PullManifest { reference: Reference::Tag(tag), .. } => {
                    tags.entry(repository).or_default().insert(tag.as_str());
                }
                Action::ListTags { .. } => {
                    if let Outcome::Listed { tags: listed } = &operation.outcome {
                        tags.entry(repository).or_default().extend(listed.iter().map(String::as_str));
                    }
                }
                Action::PullManifest { reference: Reference::Digest(_), .. }
                | Action::PushBlob { .. }
                | Action::PullBlob { .. }
                | Action::DeleteManifest { .. }
                | Action::DeleteBlob { .. } => {}
            }
        }
        Self { tags, tags_of, manifests }
    }
}

struct Index<'a, 'm> {
    names: Names<'a>,
    mirrored: &'m Mirrored<'m>,
    registers: BTreeMap<Name<'a>, Register>,
}

impl<'a> Index<'a, '_> {
    fn add(&mut self, at: usize, operation: &'a Operation) {
        let repository = operation.action.repository();
        match &operation.action {
            Action::PushManifest { digest, tag, .. } => {
                self.write((repository, Subject::Manifest(*digest)), at, operation, Some(*digest));
                if let Some(tag) = tag {
                    self.write((repository, Subject::Tag(tag)), at, operation, Some(*digest));
                }
            }
            Action::DeleteTag { tag, .. } => self.write((repository, Subject::Tag(tag)), at, operation, None),
            Action::DeleteManifest { digest, .. } => {
                self.write((repository, Subject::Manifest(*digest)), at, operation, None);
                let tags = self.names.tags_of.get(&(repository, *digest)).cloned().unwrap_or_default();
                for tag in tags {
                    let value = self.value((repository, Subject::Tag(tag)), *digest);
                    for step in writes(at, operation, Effect::Clear(value)) {
                        self.push((repository, Subject::Tag(tag)), step);
                    }
                }
            }
            Action::PullManifest { reference, .. } => self.pull(repository, reference, at, operation),
            Action::ListTags { .. } => self.list(repository, at, operation),
            Action::PushBlob { .. } | Action::PullBlob { .. } | Action::DeleteBlob { .. } => {}
        }
    }

    /// What a push or a deletion does to a register.
    fn write(&mut self, name: Name<'a>, at: usize, operation: &Operation, digest: Option<Digest>) {
        let value = digest.map(|digest| self.value(name, digest));
        for step in writes(at, operation, Effect::Write(value)) {
            self.push(name, step);
        }
        // Nothing was deleted because nothing was there.
        if operation.outcome == Outcome::Absent {
            self.read(name, at, operation, Expect::Value(None));
        }
    }

    fn pull(&mut self, repository: &'a str, reference: &'a Reference, at: usize, operation: &Operation) {
        let subject = match reference {
            Reference::Tag(tag) => Subject::Tag(tag),
            Reference::Digest(digest) => Subject::Manifest(*digest),
        };
        let (name, since) = ((repository, subject), self.mirrored.shows_since(operation));
        match (&operation.outcome, subject) {
            (Outcome::Absent, _) => self.read_since(since, name, at, operation, Expect::Value(None)),
            (Outcome::Found { .. }, Subject::Manifest(_)) => {
                self.read(name, at, operation, Expect::Something);
            }
            (Outcome::Found { digest, .. }, Subject::Tag(_)) => {
                let value = self.value(name, *digest);
                self.read_since(since, name, at, operation, Expect::Value(Some(value)));
                // What a tag shows is there. A digest that nobody pushed is the tag's violation, once.
                if self.names.manifests.contains(&(repository, *digest)) {
                    self.read((repository, Subject::Manifest(*digest)), at, operation, Expect::Something);
                }
            }
            _ => {}
        }
    }

    fn list(&mut self, repository: &'a str, at: usize, operation: &'a Operation) {
        let listed: BTreeSet<&str> = match &operation.outcome {
            Outcome::Listed { tags } => tags.iter().map(String::as_str).collect(),
            Outcome::Absent => BTreeSet::new(),
            _ => return,
        };
        for tag in self.names.tags.get(repository).cloned().unwrap_or_default() {
            let expect = if listed.contains(tag) { Expect::Something } else { Expect::Value(None) };
            self.read((repository, Subject::Tag(tag)), at, operation, expect);
        }
    }

    fn read(&mut self, name: Name<'a>, at: usize, operation: &Operation, expect: Expect) {
        self.read_since(operation.invoked, name, at, operation, expect);
    }

    /// What a read shows may have been so at any time since `invoked`.
    fn read_since(
        &mut self,
        invoked: Moment,
        name: Name<'a>,
        at: usize,
        operation: &Operation,
        expect: Expect,
    ) {
        let ended = Some(operation.ended);
        self.push(name, Step { operation: at, invoked, ended, effect: Effect::Read(expect) });
    }

    fn value(&mut self, name: Name<'a>, digest: Digest) -> u32 {
        self.registers.entry(name).or_default().value(digest)
    }

    fn push(&mut self, name: Name<'a>, step: Step) {
        self.registers.entry(name).or_default().steps.push(step);
    }
}

/// The steps by which an operation may have had its effect: once for certain if it was acknowledged, and perhaps once
/// more for each attempt whose fate is unknown.
fn writes(at: usize, operation: &Operation, effect: Effect) -> Vec<Step> {
    let perhaps = |invoked| Step { operation: at, invoked, ended: None, effect };
    let strays = operation.setbacks.iter().filter(|setback| setback.fate == Fate::Unknown);
    let mut steps: Vec<Step> = strays.map(|setback| perhaps(setback.invoked)).collect();
    match operation.outcome {
        Outcome::Acknowledged => {
            steps.push(Step { ended: Some(operation.ended), ..perhaps(operation.invoked) });
        }
        Outcome::Crashed => steps.push(perhaps(operation.invoked)),
        _ => {}
    }
    steps
}
