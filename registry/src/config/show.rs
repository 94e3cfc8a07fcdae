// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What would be in force, for people and for programs. Needs no secret.

use serde_json::{Map, Value, json};
use stowage_crds::{API_VERSION, Kind, yaml};

use super::files::Origin;
use super::{ConfigError, Sources, read};

/// What would be in force.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The hash of the compiled document.
    pub hash: String,
    /// The compiled document.
    pub document: Value,
    origin: Origin,
}

/// Checks the documents, without reading secrets.
pub fn show(sources: &Sources) -> Result<Shown, ConfigError> {
    let (document, origin) = read(sources)?;
    let encoded = document.encode();
    let document = serde_json::from_str(&encoded.json).expect("a document that was just encoded is JSON");
    Ok(Shown { hash: encoded.hash, document, origin })
}

impl Shown {
    /// The resources with all their defaults, as `serve --config` reads them; the hash in a comment.
    #[must_use]
    pub fn yaml(&self) -> String {
        format!("# {}\n{}", self.hash, yaml::to_stream(&self.resources()))
    }

    /// The Registry and the resources naming it that the document was compiled from.
    fn resources(&self) -> Vec<Value> {
        let namespace = &self.document["registry"]["namespace"];
        let mut registry = resource(Kind::Registry, namespace, &self.document["registry"]);
        // Without it an operator's document lets nobody in, and a file of resources everybody.
        if self.origin == Origin::Operator && registry["spec"].get("auth").is_none() {
            registry["spec"]["auth"] = json!({ "anonymous": "None" });
        }
        let lists = [
            ("accessPolicies", Kind::AccessPolicy),
            ("mirrors", Kind::Mirror),
            ("virtualRepositories", Kind::VirtualRepository),
            ("promotionPolicies", Kind::PromotionPolicy),
            ("retentionPolicies", Kind::RetentionPolicy),
        ];
        let dependents = lists.into_iter().flat_map(|(list, kind)| {
            let entries = self.document[list].as_array().into_iter().flatten();
            entries.map(move |entry| resource(kind, namespace, entry))
        });
        std::iter::once(registry).chain(dependents).collect()
    }
}

/// An entry of the document as the resource it was.
fn resource(kind: Kind, namespace: &Value, entry: &Value) -> Value {
    let mut metadata = Map::from_iter([("name".to_owned(), entry["name"].clone())]);
    if !namespace.is_null() {
        metadata.insert("namespace".to_owned(), namespace.clone());
    }
    json!({ "apiVersion": API_VERSION, "kind": kind.as_str(), "metadata": metadata, "spec": entry["spec"] })
}
