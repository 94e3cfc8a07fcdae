// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Prints what the operator would apply, without a cluster.
//!
//! Guarantees: the same functions as in a cluster make it. Resources are checked by every rule first, and what is
//! wrong is named by document and field path.
//! Never: prints a key. The Secret with the token key is shown empty; in a cluster it is filled once.

use std::{fmt, sync::Arc};

use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stowage_crds::{Dependents, Kind as ResourceKind, Registry, check, yaml};
use thiserror::Error;

use crate::{
    apis::Apis,
    controllers::registry::{
        build::{build, token_key},
        observe::Observed,
        validate::{Refusal, Settings, validate},
    },
};

/// Why nothing was rendered.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The text is no YAML.
    #[error("document {document}: {message}")]
    Yaml {
        /// Its number, from one.
        document: usize,
        /// What the parser says.
        message: String,
    },
    /// A document is none of our kinds.
    #[error("document {document}: not a resource of {}", stowage_crds::API_VERSION)]
    NotOurs {
        /// Its number, from one.
        document: usize,
    },
    /// Resources break rules.
    #[error("{0}")]
    Invalid(Problems),
    /// There is nothing to render for.
    #[error("there is no Registry in the file")]
    NoRegistry,
    /// A Registry cannot be rendered.
    #[error("Registry {name}: {refusal}")]
    Refused {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        refusal: Refusal,
    },
}

/// One line a broken rule.
#[derive(Debug)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Everything that would be applied for the resources in `text`, as YAML.
pub fn render(text: &str, settings: &Settings, apis: &Apis) -> Result<String, RenderError> {
    let resources = read(text)?;
    let (registries, dependents) = typed(&resources);
    if registries.is_empty() {
        return Err(RenderError::NoRegistry);
    }
    let mut bodies = Vec::new();
    for registry in &registries {
        let seen = Observed {
            dependents: dependents.clone(),
            apis: apis.clone(),
            others: registries.clone(),
            ..Observed::default()
        };
        let valid = validate(registry, &seen, settings).map_err(|refusal| RenderError::Refused {
            name: registry.metadata.name.clone().unwrap_or_default(),
            refusal,
        })?;
        let plan = build(&valid);
        bodies.extend(plan.objects().map(|object| object.body().clone()));
        bodies.extend(token_key::build(&valid, None).map(|object| object.body().clone()));
    }
    Ok(yaml::to_stream(&bodies))
}

/// Reads and checks every document.
fn read(text: &str) -> Result<Vec<Value>, RenderError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| RenderError::Yaml { document: 1, message: error.to_string() })?;
    let mut resources = Vec::new();
    let mut problems = Vec::new();
    for (at, document) in documents.into_iter().enumerate().filter(|(_, document)| !document.is_null()) {
        let kind = ResourceKind::of(&document).ok_or(RenderError::NotOurs { document: at + 1 })?;
        match check::resource(kind, None, &document) {
            Ok(resource) => resources.push(resource),
            Err(violations) => {
                problems
                    .extend(violations.iter().map(|violation| format!("document {}: {violation}", at + 1)));
            }
        }
    }
    let together = check::together(&resources);
    problems.extend(
        together.iter().map(|misfit| format!("document {}: {}", misfit.resource + 1, misfit.violation)),
    );
    if problems.is_empty() { Ok(resources) } else { Err(RenderError::Invalid(Problems(problems))) }
}

/// The resources as their types, as an API server would have saved them.
fn typed(resources: &[Value]) -> (Vec<Arc<Registry>>, Dependents) {
    let mut registries: Vec<Registry> = of_kind(resources, ResourceKind::Registry);
    for registry in &mut registries {
        registry.metadata.uid.get_or_insert_with(|| UNSAVED.into());
    }
    let dependents = Dependents {
        access_policies: of_kind(resources, ResourceKind::AccessPolicy),
        mirrors: of_kind(resources, ResourceKind::Mirror),
        virtual_repositories: of_kind(resources, ResourceKind::VirtualRepository),
        promotion_policies: of_kind(resources, ResourceKind::PromotionPolicy),
        retention_policies: of_kind(resources, ResourceKind::RetentionPolicy),
    };
    (registries.into_iter().map(Arc::new).collect(), dependents)
}

fn of_kind<K: Resource + DeserializeOwned>(resources: &[Value], kind: ResourceKind) -> Vec<K> {
    let of_kind = resources.iter().filter(|resource| ResourceKind::of(resource) == Some(kind));
    let read = of_kind.filter_map(|resource| serde_json::from_value::<K>(resource.clone()).ok());
    read.map(|mut resource| {
        resource.meta_mut().namespace.get_or_insert_with(|| "default".into());
        resource.meta_mut().generation.get_or_insert(1);
        resource
    })
    .collect()
}

/// In the place of the uid that an API server gives.
const UNSAVED: &str = "00000000-0000-0000-0000-000000000000";
