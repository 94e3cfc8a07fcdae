// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Files → the document: what people write, or what the operator compiled.
//!
//! Guarantees: resources written by hand are checked strictly (fields, types, rules, references, names), and
//! every problem of all files is named at once.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stowage_crds::document::{Document, Schedules, Sources as Resources, compile};
use stowage_crds::{Dependents, Kind, OPERATOR_FIELDS, Registry, check};

use super::error::{ConfigError, Problem};

/// The file name of the operator's compiled document, and of the hash beside it.
const DOCUMENT: &str = "document.json";
const HASH: &str = "hash";

/// Who made the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This process, from files or from its defaults: without `auth` there is no authentication.
    Standalone,
    /// The operator: without `auth` nobody is let in.
    Operator,
}

/// Reads the document from files and folders; without any, the embedded one.
pub(super) fn read(
    paths: &[PathBuf],
    registry: Option<&str>,
    embedded_url: &str,
) -> Result<(Document, Origin), ConfigError> {
    if paths.is_empty() {
        return Ok((embedded(embedded_url)?, Origin::Standalone));
    }
    let files = files(paths)?;
    if let Some(document) = files.iter().find(|file| is_document(file)) {
        if files.len() > 1 {
            return Err(ConfigError::Mixed(document.clone()));
        }
        return Ok((compiled(document)?, Origin::Operator));
    }
    Ok((from_resources(&files, registry)?, Origin::Standalone))
}

fn is_document(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == DOCUMENT)
}

/// The files that are meant: those named, and the YAML and JSON files of folders in the order of their names.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |source| ConfigError::Read { path: path.clone(), source };
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if is_meant(&file) {
                found.push(file);
            }
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// A mounted `ConfigMap` also has hidden folders, which hold the same files again.
fn is_meant(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = file.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file()
}

fn compiled(file: &Path) -> Result<Document, ConfigError> {
    let json = bytes(file)?;
    let hash = file.with_file_name(HASH);
    let failed = |source| ConfigError::Document { file: file.to_owned(), source };
    if !hash.exists() {
        return Document::parse(&json).map_err(failed);
    }
    let expected = String::from_utf8_lossy(&bytes(&hash)?).trim().to_owned();
    Document::parse_checked(&json, &expected).map_err(failed)
}

fn bytes(file: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(file).map_err(|source| ConfigError::Read { path: file.to_owned(), source })
}

/// The hash of the compiled document, whatever is wrong with it; `None` where resources are read.
pub(super) fn hash(paths: &[PathBuf]) -> Option<String> {
    let document = files(paths).ok()?.into_iter().find(|file| is_document(file))?;
    Some(stowage_crds::document::hash(&std::fs::read(document).ok()?))
}

/// A resource, and where it was found.
struct Found {
    file: PathBuf,
    document: usize,
    kind: Kind,
    value: Value,
}

impl Found {
    fn problem(&self, message: &impl ToString) -> Problem {
        Problem { file: self.file.clone(), document: self.document, message: message.to_string() }
    }
}

fn from_resources(files: &[PathBuf], registry: Option<&str>) -> Result<Document, ConfigError> {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for file in files {
        for (document, value) in documents(file)? {
            match checked(file, document, &value) {
                Ok(resource) => found.push(resource),
                Err(broken) => problems.extend(broken),
            }
        }
    }
    let values: Vec<Value> = found.iter().map(|found| found.value.clone()).collect();
    let misfits = check::together(&values);
    problems.extend(misfits.iter().map(|misfit| found[misfit.resource].problem(&misfit.violation)));
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    let dependents = Dependents {
        access_policies: of_kind(&found, Kind::AccessPolicy)?,
        mirrors: of_kind(&found, Kind::Mirror)?,
        virtual_repositories: of_kind(&found, Kind::VirtualRepository)?,
        promotion_policies: of_kind(&found, Kind::PromotionPolicy)?,
        retention_policies: of_kind(&found, Kind::RetentionPolicy)?,
    };
    assemble(&chosen(&found, registry)?, &dependents)
}

/// The documents of a YAML stream with their number, without those that say nothing.
fn documents(file: &Path) -> Result<Vec<(usize, Value)>, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| ConfigError::Read { path: file.to_owned(), source })?;
    let values: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|source| ConfigError::Yaml { file: file.to_owned(), source: Box::new(source) })?;
    let numbered = values.into_iter().enumerate().map(|(at, value)| (at + 1, value));
    Ok(numbered.filter(|(_, value)| !value.is_null()).collect())
}

/// The resource with its defaults filled in, or what is wrong with it.
fn checked(file: &Path, document: usize, value: &Value) -> Result<Found, Vec<Problem>> {
    let problem = |message: String| Problem { file: file.to_owned(), document, message };
    let Some(kind) = Kind::of(value) else {
        let known = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Promotion);
        let known = known.map(Kind::as_str).collect::<Vec<_>>().join(" or ");
        let message = format!("kind: expected {known} of {}", stowage_crds::API_VERSION);
        return Err(vec![problem(message)]);
    };
    if kind == Kind::Promotion {
        let message =
            "kind: a Promotion is no configuration: hand it to `stowage-registry promote --request FILE`";
        return Err(vec![problem(message.to_owned())]);
    }
    let skipped: Vec<&str> =
        OPERATOR_FIELDS.into_iter().filter(|f| value["spec"].get(*f).is_some()).collect();
    if kind == Kind::Registry && !skipped.is_empty() {
        tracing::info!(fields = skipped.join(" "), "fields for the operator alone are skipped");
    }
    match check::resource(kind, None, value) {
        Ok(value) => Ok(Found { file: file.to_owned(), document, kind, value }),
        Err(broken) => Err(broken.iter().map(|violation| problem(violation.to_string())).collect()),
    }
}

fn of_kind<T: DeserializeOwned>(found: &[Found], kind: Kind) -> Result<Vec<T>, ConfigError> {
    found.iter().filter(|found| found.kind == kind).map(typed).collect()
}

fn typed<T: DeserializeOwned>(found: &Found) -> Result<T, ConfigError> {
    let read = serde_json::from_value(found.value.clone());
    read.map_err(|error| ConfigError::Invalid(vec![found.problem(&error)]))
}

fn chosen(found: &[Found], wanted: Option<&str>) -> Result<Registry, ConfigError> {
    let registries: Vec<Registry> = of_kind(found, Kind::Registry)?;
    let name = |registry: &Registry| registry.metadata.name.clone().unwrap_or_default();
    let names: Vec<String> = registries.iter().map(name).collect();
    let mut candidates = registries.into_iter().filter(|r| wanted.is_none_or(|wanted| name(r) == wanted));
    match (candidates.next(), candidates.next(), wanted) {
        (Some(registry), None, _) => Ok(registry),
        (None, _, Some(wanted)) => Err(ConfigError::UnknownRegistry(wanted.to_owned())),
        (None, _, None) => Err(ConfigError::NoRegistry),
        (Some(_), Some(_), _) => Err(ConfigError::SeveralRegistries(names)),
    }
}

fn assemble(registry: &Registry, dependents: &Dependents) -> Result<Document, ConfigError> {
    let sources = Resources { registry, dependents, schedules: Schedules::InProcess, previous: None };
    let compiled = compile(&sources)
        .map_err(|invalid| ConfigError::Field { field: "spec".to_owned(), problem: invalid.to_string() })?;
    Ok(compiled.document)
}

/// What a process without configuration is: files and SQLite, no authentication.
fn embedded(url: &str) -> Result<Document, ConfigError> {
    let value = json!({
        "apiVersion": stowage_crds::API_VERSION,
        "kind": "Registry",
        "metadata": { "name": "embedded" },
        "spec": { "externalURL": url, "storage": { "filesystem": {} }, "database": { "sqlite": {} } },
    });
    let registry = checked(Path::new("(embedded)"), 1, &value).map_err(ConfigError::Invalid)?;
    assemble(&typed(&registry)?, &Dependents::default())
}
