// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The document: one Registry and the resources that name it, as a replica applies them.
//!
//! [`compile`] is the only way to make one, in the operator and in a standalone process alike. In goes what names
//! the Registry, is valid, and is not being deleted. An invalid edit of a resource keeps the entry of the previous
//! document; an invalid Registry keeps the previous document as it is. What [`paths`] and [`cycles`] find in the way of
//! something older stays out.
//!
//! Guarantees: pure; the same resources give the same bytes and so the same hash, in any order and any build.
//! Only the part of the Registry that is for replicas is in it, so scaling does not move the hash.
//! Versions: a document says the lowest version that expresses it. A replica ignores what it does not know of a
//! newer minor version and refuses a newer major one. A field whose ignoring would widen a right or delete more
//! raises the major version.

use std::{collections::BTreeMap, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    API_VERSION, AccessPolicySpec, Kind, MirrorSpec, OPERATOR_FIELDS, PromotionPolicySpec, Registry,
    RegistrySpec, RetentionPolicySpec, VirtualRepositorySpec,
    check::{self, Violation},
    cycles,
    dependent::{Dependent, Dependents},
    paths::{self, Conflict},
};

/// The most bytes that a document may have: a ConfigMap holds 1 MiB with all its metadata.
pub const MAX_BYTES: usize = 900 * 1024;

const KIND: &str = "Document";

/// One Registry and the resources that name it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    api_version: String,
    kind: String,
    /// The lowest version that expresses the content.
    pub version: DocumentVersion,
    /// The Registry.
    pub registry: RegistryEntry,
    /// How this process is to run, beyond the spec.
    #[serde(default)]
    pub runtime: Runtime,
    /// Access policies, by name.
    #[serde(default)]
    pub access_policies: Vec<Entry<AccessPolicySpec>>,
    /// Mirrors, by name. From version 1.1 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Entry<MirrorSpec>>,
    /// Virtual repositories, by name. From version 1.1 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_repositories: Vec<Entry<VirtualRepositorySpec>>,
    /// Promotion policies, by name. From version 1.2 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promotion_policies: Vec<Entry<PromotionPolicySpec>>,
    /// Retention policies, by name. From version 1.2 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retention_policies: Vec<Entry<RetentionPolicySpec>>,
}

/// The Registry of a document.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct RegistryEntry {
    /// Its namespace; absent standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid; absent standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its spec. The fields for the operator alone are at their defaults.
    #[serde(serialize_with = "without_operator_fields")]
    pub spec: RegistrySpec,
}

/// A resource that names the Registry.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Entry<S> {
    /// Its name.
    pub name: String,
    /// The generation of this spec; 0 standalone.
    #[serde(default)]
    pub generation: i64,
    /// Its spec.
    pub spec: S,
}

/// How a process is to run, beyond the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Runtime {
    /// Who starts runs that have a schedule.
    #[serde(default)]
    pub schedules: Schedules,
}

/// Who starts runs that have a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Schedules {
    /// Kubernetes, as Jobs.
    Jobs,
    /// The process itself.
    #[default]
    InProcess,
}

/// Version of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct DocumentVersion {
    /// A newer one is refused.
    pub major: u16,
    /// Of a newer one, what is not known is ignored.
    pub minor: u16,
}

/// The text is not a version of a document.
#[derive(Debug, thiserror::Error)]
#[error("not a document version: {0:?}; expected major.minor, as in 1.0")]
pub struct NotAVersion(String);

impl DocumentVersion {
    /// The highest version that this build understands.
    pub const SUPPORTED: Self = Self { major: 1, minor: 2 };
    /// The first one.
    const FIRST: Self = Self { major: 1, minor: 0 };
    /// The first one with mirrors and virtual repositories.
    const WITH_PATHS: Self = Self { major: 1, minor: 1 };
    /// The first one with policies beyond access. Who ignores them deletes and promotes nothing.
    const WITH_POLICIES: Self = Self { major: 1, minor: 2 };
}

impl fmt::Display for DocumentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for DocumentVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let parsed = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }));
        parsed.filter(|version| version.to_string() == text).ok_or_else(|| NotAVersion(text.to_owned()))
    }
}

impl TryFrom<String> for DocumentVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<DocumentVersion> for String {
    fn from(version: DocumentVersion) -> Self {
        version.to_string()
    }
}

/// What a document is made of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The Registry.
    pub registry: &'a Registry,
    /// All resources in sight that name a Registry; those of other ones are left out.
    pub dependents: &'a Dependents,
    /// Who starts runs that have a schedule.
    pub schedules: Schedules,
    /// The document in force, whose entries outlive an invalid edit.
    pub previous: Option<&'a Document>,
}

/// A document, and what could not go into it as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The document.
    pub document: Document,
    /// Resources whose newest edit is invalid.
    pub invalid: Vec<Invalid>,
    /// Valid resources that stay out, because of others.
    pub conflicts: Vec<Conflict>,
}

/// A resource whose newest edit is invalid.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The rules it breaks.
    pub violations: Vec<Violation>,
}

/// The Registry is invalid: the previous document stays.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the Registry is invalid: {}", check::listed(.0))]
pub struct InvalidRegistry(pub Vec<Violation>);

/// Makes the document of a Registry.
pub fn compile(sources: &Sources<'_>) -> Result<Compiled, InvalidRegistry> {
    let registry = sources.registry;
    let violations = check::typed(Kind::Registry, registry);
    if !violations.is_empty() {
        return Err(InvalidRegistry(violations));
    }
    let mut invalid = Vec::new();
    let access_policies = entries(sources, &sources.dependents.access_policies, &mut invalid);
    let mut mirrors = entries(sources, &sources.dependents.mirrors, &mut invalid);
    let mut virtuals = entries(sources, &sources.dependents.virtual_repositories, &mut invalid);
    let mut promotion_policies = entries(sources, &sources.dependents.promotion_policies, &mut invalid);
    let mut conflicts = paths::conflicts(registry, &mirrors, &virtuals);
    conflicts.extend(cycles::conflicts(&promotion_policies));
    let is_out = |kind, name: &str| conflicts.iter().any(|found| found.kind == kind && found.name == name);
    mirrors.retain(|found| !is_out(Kind::Mirror, &found.entry.name));
    virtuals.retain(|found| !is_out(Kind::VirtualRepository, &found.entry.name));
    promotion_policies.retain(|found| !is_out(Kind::PromotionPolicy, &found.entry.name));
    let retention_policies = entries(sources, &sources.dependents.retention_policies, &mut invalid);
    let version = if !promotion_policies.is_empty() || !retention_policies.is_empty() {
        DocumentVersion::WITH_POLICIES
    } else if !mirrors.is_empty() || !virtuals.is_empty() {
        DocumentVersion::WITH_PATHS
    } else {
        DocumentVersion::FIRST
    };
    let document = Document {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        version,
        registry: RegistryEntry {
            namespace: registry.metadata.namespace.clone(),
            name: registry.metadata.name.clone().unwrap_or_default(),
            uid: registry.metadata.uid.clone(),
            spec: for_replicas(&registry.spec),
        },
        runtime: Runtime { schedules: sources.schedules },
        access_policies: plain(access_policies),
        mirrors: plain(mirrors),
        virtual_repositories: plain(virtuals),
        promotion_policies: plain(promotion_policies),
        retention_policies: plain(retention_policies),
    };
    invalid.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Ok(Compiled { document, invalid, conflicts })
}

/// The resource that an entry is of can be older than others.
#[derive(Clone, Debug)]
pub(crate) struct Dated<S> {
    pub(crate) entry: Entry<S>,
    /// When the resource was made; `None`, which is before everything else, where nobody knows.
    pub(crate) made: Option<Time>,
}

impl<S: Clone> Dated<S> {
    pub(crate) fn of<K: Dependent<Spec = S>>(resource: &K) -> Self {
        let meta = resource.meta();
        let name = meta.name.clone().unwrap_or_default();
        let generation = meta.generation.unwrap_or_default();
        let entry = Entry { name, generation, spec: resource.spec().clone() };
        Self { entry, made: meta.creation_timestamp.clone() }
    }
}

fn plain<S>(entries: Vec<Dated<S>>) -> Vec<Entry<S>> {
    entries.into_iter().map(|dated| dated.entry).collect()
}

/// The entries of a kind by name. A resource whose newest edit is invalid keeps the entry that it had.
fn entries<K: Dependent>(
    sources: &Sources<'_>,
    resources: &[K],
    invalid: &mut Vec<Invalid>,
) -> Vec<Dated<K::Spec>> {
    let mut entries = BTreeMap::new();
    for resource in resources.iter().filter(|resource| concerns(sources.registry, *resource)) {
        let mut dated = Dated::of(resource);
        let name = dated.entry.name.clone();
        let violations = check::typed(K::KIND, resource);
        if !violations.is_empty() {
            invalid.push(Invalid { kind: K::KIND, name: name.clone(), violations });
            let previous = sources.previous.map(K::entries).unwrap_or_default();
            let Some(entry) = previous.iter().find(|entry| entry.name == name) else { continue };
            dated.entry = entry.clone();
        }
        entries.insert(name, dated);
    }
    entries.into_values().collect()
}

fn concerns<K: Dependent>(registry: &Registry, resource: &K) -> bool {
    let meta = resource.meta();
    meta.deletion_timestamp.is_none()
        && meta.namespace == registry.metadata.namespace
        && registry.metadata.name.as_ref() == Some(&resource.registry_ref().name)
}

/// The spec with the operator's part at its defaults.
fn for_replicas(spec: &RegistrySpec) -> RegistrySpec {
    serde_json::from_value(stripped(spec)).expect("a spec without optional fields is a spec")
}

fn without_operator_fields<S: Serializer>(spec: &RegistrySpec, serializer: S) -> Result<S::Ok, S::Error> {
    stripped(spec).serialize(serializer)
}

fn stripped(spec: &RegistrySpec) -> Value {
    let mut value = serde_json::to_value(spec).expect("a spec is JSON");
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !OPERATOR_FIELDS.contains(&name.as_str()));
    }
    value
}

/// A document as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Canonical JSON: keys sorted, no white space.
    pub json: String,
    /// `sha256:` and the hash of those bytes.
    pub hash: String,
}

impl Encoded {
    /// Whether the document is larger than a replica may be handed.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.json.len() > MAX_BYTES
    }
}

/// The bytes are no document that this build may apply.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or a field has a wrong type.
    #[error("the document cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// Something else than a document.
    #[error("expected {KIND} of {API_VERSION}, found {kind} of {api_version}")]
    NotADocument {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// Another major version.
    #[error(
        "document version {found} is not understood; the highest that is: {}",
        DocumentVersion::SUPPORTED
    )]
    Unsupported {
        /// Its version.
        found: DocumentVersion,
    },
    /// The bytes are not those that the hash was made of.
    #[error("the document's hash is {found}, not {expected}")]
    HashMismatch {
        /// The hash that came with it.
        expected: String,
        /// The hash of the bytes.
        found: String,
    },
}

/// What every version of a document has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
    version: DocumentVersion,
}

impl Document {
    /// Reads a document; of a newer minor version, what is not known is ignored.
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        let header: Header = serde_json::from_slice(json).map_err(ParseError::Malformed)?;
        if header.api_version != API_VERSION || header.kind != KIND {
            return Err(ParseError::NotADocument { api_version: header.api_version, kind: header.kind });
        }
        if header.version.major != DocumentVersion::SUPPORTED.major {
            return Err(ParseError::Unsupported { found: header.version });
        }
        serde_json::from_slice(json).map_err(ParseError::Malformed)
    }

    /// Reads a document that came with its hash.
    pub fn parse_checked(json: &[u8], expected: &str) -> Result<Self, ParseError> {
        let found = hash(json);
        if found != expected {
            return Err(ParseError::HashMismatch { expected: expected.to_owned(), found });
        }
        Self::parse(json)
    }

    /// The document as it travels.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        let mut json = String::new();
        canonical(&self.to_json(), &mut json);
        let hash = hash(json.as_bytes());
        Encoded { json, hash }
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a document is JSON")
    }

    /// How many resources it holds, the Registry among them.
    #[must_use]
    pub fn resource_count(&self) -> usize {
        1 + self.access_policies.len()
            + self.mirrors.len()
            + self.virtual_repositories.len()
            + self.promotion_policies.len()
            + self.retention_policies.len()
    }
}

/// `sha256:` and the hash of `bytes` in hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Writes `value` with sorted keys; the order of `serde_json`'s own map is a feature that any crate may switch.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            out.push('{');
            for (at, (name, field)) in sorted.into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                canonical(field, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
