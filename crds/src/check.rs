// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether resources are valid: structure, the rules beyond it, and how resources stand to each other.
//!
//! A cluster's API server asks the first two of one object at a time; a standalone process asks all of it here,
//! with the same verdicts. Pure.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize as _, Serialize};
use serde_json::Value;

use crate::{
    Dependent, Kind, Mirror, PromotionPolicy, Registry, RetentionPolicy, VirtualRepository, cycles,
    document::Dated,
    paths, promotion_policy, replication, retention_policy, rules,
    schema::{Step, steps},
    strict,
};

/// Where in an object something stands: `spec.subjects[2].user`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// The object itself.
    #[must_use]
    pub fn root() -> Self {
        Self(String::new())
    }

    /// The field of this name below.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        Self(match (self.0.is_empty(), plain) {
            (true, true) => name.to_owned(),
            (false, true) => format!("{}.{name}", self.0),
            (_, false) => format!("{}[{name:?}]", self.0),
        })
    }

    /// The item at this place of the list.
    #[must_use]
    pub fn item(&self, at: usize) -> Self {
        Self(format!("{}[{at}]", self.0))
    }

    /// The text; empty for the object itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FieldPath {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A rule that an object breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The place.
    pub path: FieldPath,
    /// What is wrong there, for a human.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// Violations in one line.
pub(crate) fn listed(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks one object as people write it. The result is the object with its defaults.
///
/// `previous` is what was in force before: some fields cannot change. Unknown fields are violations.
pub fn resource(kind: Kind, previous: Option<&Value>, next: &Value) -> Result<Value, Vec<Violation>> {
    let admitted = strict::admit(kind, next);
    let unknown = admitted.unknown.into_iter();
    let unknown =
        unknown.map(|path| Violation { path, message: "is no field that is known here".to_owned() });
    let mut violations: Vec<_> = admitted.violations.into_iter().chain(unknown).collect();
    if violations.is_empty() {
        let previous = previous.map(|previous| strict::admit(kind, previous).object);
        violations = broken_rules(kind, previous.as_ref(), &admitted.object);
    }
    if violations.is_empty() {
        violations = problems(kind, &admitted.object);
    }
    violations.sort();
    if violations.is_empty() { Ok(admitted.object) } else { Err(violations) }
}

/// What is wrong with an object that neither its structure nor its rules can say.
fn problems(kind: Kind, object: &Value) -> Vec<Violation> {
    match kind {
        Kind::Mirror => Mirror::deserialize(object).map(|mirror| replication::problems(&mirror.spec)),
        Kind::RetentionPolicy => {
            RetentionPolicy::deserialize(object).map(|policy| retention_policy::problems(&policy.spec))
        }
        Kind::PromotionPolicy => {
            PromotionPolicy::deserialize(object).map(|policy| promotion_policy::problems(&policy.spec))
        }
        Kind::Registry => Registry::deserialize(object).map(|registry| registry.spec.immutability_problems()),
        Kind::AccessPolicy | Kind::VirtualRepository | Kind::Promotion => Ok(Vec::new()),
    }
    .unwrap_or_default()
}

/// Checks an object that has been read: its structure and rules, without regard to what was before.
#[must_use]
pub fn typed<T: Serialize>(kind: Kind, object: &T) -> Vec<Violation> {
    resource(kind, None, &json(object)).err().unwrap_or_default()
}

/// Whether `next` changes something that cannot change.
#[must_use]
pub fn transition<T: Serialize>(kind: Kind, previous: &T, next: &T) -> Vec<Violation> {
    resource(kind, Some(&json(previous)), &json(next)).err().unwrap_or_default()
}

fn json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("a resource is JSON")
}

/// Rules beyond structure that an object with its defaults breaks.
fn broken_rules(kind: Kind, previous: Option<&Value>, next: &Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    for rule in rules::of(kind) {
        for (path, node) in nodes(next, rule.at) {
            // Rules on items of lists compare nothing with before: an item has no identity.
            let before = previous.and_then(|previous| nodes(previous, rule.at).pop()).map(|(_, node)| node);
            if !rule.holds(node, before) {
                violations.push(Violation { path, message: rule.message.to_owned() });
            }
        }
    }
    violations
}

/// The nodes at a rule's place, with their paths; none where a part of the way does not exist.
fn nodes<'a>(object: &'a Value, at: &str) -> Vec<(FieldPath, &'a Value)> {
    steps(at).fold(vec![(FieldPath::root(), object)], |found, step| {
        let below = found.into_iter().flat_map(|(path, node)| match step {
            Step::Field(name) => node.get(name).map(|child| (path.field(name), child)).into_iter().collect(),
            Step::Items => items(&path, node),
        });
        below.collect()
    })
}

fn items<'a>(path: &FieldPath, node: &'a Value) -> Vec<(FieldPath, &'a Value)> {
    node.as_array().into_iter().flatten().enumerate().map(|(at, item)| (path.item(at), item)).collect()
}

/// A violation in one of several resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Which of the resources, by its place in the list that was checked.
    pub resource: usize,
    /// What is wrong with it.
    pub violation: Violation,
}

impl Misfit {
    /// A resource stays out, because of others.
    fn of(found: paths::Conflict, resource: usize) -> Self {
        Self { resource, violation: Violation { path: found.path.into(), message: found.message } }
    }
}

/// Checks resources that are to be used together without a cluster: every name once per kind, one namespace or
/// none, every reference to something that is there, and no path in the way of another.
#[must_use]
pub fn together(resources: &[Value]) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let mut seen: BTreeMap<(Option<&str>, &str), usize> = BTreeMap::new();
    for (at, resource) in resources.iter().enumerate() {
        let mut refuse = |path: &str, message: String| {
            misfits.push(Misfit { resource: at, violation: Violation { path: path.into(), message } });
        };
        let name = text(resource, "/metadata/name").unwrap_or_default();
        let kind = text(resource, "/kind");
        if seen.insert((kind, name), at).is_some() {
            refuse("metadata.name", format!("another {} is named {name:?}", kind.unwrap_or("resource")));
        }
        if namespace(resource) != resources.first().and_then(namespace) {
            refuse("metadata.namespace", "all resources must be of one namespace, or of none".to_owned());
        }
        if let Some(wanted) = text(resource, "/spec/registryRef/name")
            && !resources.iter().any(|other| is_registry(other, wanted))
        {
            refuse("spec.registryRef.name", format!("there is no Registry named {wanted:?}"));
        }
    }
    for resource in resources.iter().filter(|resource| Kind::of(resource) == Some(Kind::Registry)) {
        if let Ok(registry) = Registry::deserialize(resource) {
            misfits.extend(misfits_of_paths(&registry, resources));
            misfits.extend(misfits_of_policies(&registry, resources));
        }
    }
    misfits
}

/// What is wrong with the mirrors and virtual repositories of a Registry taken together.
fn misfits_of_paths(registry: &Registry, resources: &[Value]) -> Vec<Misfit> {
    let (mirror_places, mirrors) = dependents_of::<Mirror>(registry, resources);
    let (virtual_places, virtuals) = dependents_of::<VirtualRepository>(registry, resources);
    let place = |kind: Kind, name: &str| match kind {
        Kind::Mirror => mirrors.iter().position(|found| found.entry.name == name).map(|at| mirror_places[at]),
        _ => virtuals.iter().position(|found| found.entry.name == name).map(|at| virtual_places[at]),
    };
    let conflicts = paths::conflicts(registry, &mirrors, &virtuals)
        .into_iter()
        .filter_map(|found| place(found.kind, &found.name).map(|resource| Misfit::of(found, resource)));
    let mut misfits: Vec<_> = conflicts.collect();
    for (resource, found) in virtual_places.iter().zip(&virtuals) {
        for (at, member) in found.entry.spec.members.iter().enumerate() {
            let wanted = member.mirror_ref.as_ref().map(|wanted| &wanted.name);
            let has_path = |wanted: &&String| {
                mirrors.iter().any(|found| found.entry.name == **wanted && found.entry.spec.path.is_some())
            };
            if let Some(wanted) = wanted.filter(|wanted| !has_path(wanted)) {
                let path = FieldPath::from("spec.members").item(at).field("mirrorRef").field("name");
                let message = match place(Kind::Mirror, wanted) {
                    None => format!("there is no Mirror named {wanted:?} of this Registry"),
                    Some(_) => format!("Mirror {wanted:?} has no path: name its repositories instead"),
                };
                misfits.push(Misfit { resource: *resource, violation: Violation { path, message } });
            }
        }
    }
    misfits
}

/// Promotion policies that name others which are not there, or that lead back to themselves.
fn misfits_of_policies(registry: &Registry, resources: &[Value]) -> Vec<Misfit> {
    let (places, policies) = dependents_of::<PromotionPolicy>(registry, resources);
    let is_there = |name: &str| policies.iter().any(|found| found.entry.name == name);
    let cycles = cycles::conflicts(&policies).into_iter().filter_map(|found| {
        let at = policies.iter().position(|policy| policy.entry.name == found.name)?;
        Some(Misfit::of(found, places[at]))
    });
    let misfits = places.iter().zip(&policies).flat_map(|(resource, found)| {
        let missing = found.entry.spec.named_policies().filter(|(_, name)| !is_there(name));
        missing.map(|(path, name)| {
            let message = format!("there is no PromotionPolicy named {name:?} of this Registry");
            Misfit { resource: *resource, violation: Violation { path, message } }
        })
    });
    misfits.chain(cycles).collect()
}

/// The resources of a kind that name a Registry, with their places in the list.
fn dependents_of<K: Dependent>(
    registry: &Registry,
    resources: &[Value],
) -> (Vec<usize>, Vec<Dated<K::Spec>>) {
    let of_kind = resources.iter().enumerate().filter(|(_, resource)| Kind::of(resource) == Some(K::KIND));
    let read = of_kind.filter_map(|(at, resource)| Some((at, K::deserialize(resource).ok()?)));
    let ours = read.filter(|(_, found)| Some(&found.registry_ref().name) == registry.metadata.name.as_ref());
    ours.map(|(at, found)| (at, Dated::of(&found))).unzip()
}

fn is_registry(resource: &Value, name: &str) -> bool {
    Kind::of(resource) == Some(Kind::Registry) && text(resource, "/metadata/name") == Some(name)
}

fn namespace(resource: &Value) -> Option<&str> {
    text(resource, "/metadata/namespace")
}

fn text<'a>(resource: &'a Value, pointer: &str) -> Option<&'a str> {
    resource.pointer(pointer).and_then(Value::as_str)
}
