// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Brings prepared objects to the API server, and takes away what is wanted no longer.
//!
//! Guarantees: what we say about an object is server-side applied with one field manager, so that a field we stop
//! mentioning goes and a field of somebody else stays. An object of our name that is not ours is never touched.
//! Assumes: nothing about what the server held before; every call may be repeated.
//! Never: reads or changes a Secret, changes a Job, deletes a volume.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::Value;
use thiserror::Error;

use crate::{
    names::{COMPONENT_LABEL, Component, MANAGER, REGISTRY_LABEL},
    objects::{Kind, Object},
    policy::Class,
};

/// Why an object could not be brought to the server.
#[derive(Debug, Error)]
pub enum Error {
    /// There is one of that name which is not ours.
    #[error("{kind:?} {name} exists and does not belong to this resource")]
    NameTaken {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The server refuses what we built; it will refuse it again.
    #[error("{kind:?} {name} was refused: {message}")]
    Rejected {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// What the server says is wrong.
        message: String,
    },
    /// The server could not be asked.
    #[error("{verb} {kind:?} {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// Its name; empty for a list.
        name: String,
        /// What came back.
        #[source]
        source: kube::Error,
    },
}

impl Error {
    /// Who must act.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NameTaken { .. } | Self::Rejected { .. } => Class::Terminal,
            Self::Api { .. } => Class::Transient,
        }
    }
}

/// The objects of one Registry that the server holds.
#[derive(Debug, Clone, Default)]
pub struct Live(BTreeMap<(Kind, String), DynamicObject>);

impl Live {
    /// Remembers what the server answered.
    pub fn insert(&mut self, kind: Kind, object: DynamicObject) {
        self.0.insert((kind, object.name_any()), object);
    }

    /// The object of a kind and name.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&DynamicObject> {
        self.0.get(&(kind, name.to_owned()))
    }

    /// The object of a kind and name as its type.
    #[must_use]
    pub fn typed<K: serde::de::DeserializeOwned>(&self, kind: Kind, name: &str) -> Option<K> {
        self.get(kind, name).and_then(crate::objects::parse)
    }

    /// Forgets an object that was deleted.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        self.0.remove(&(kind, name.to_owned()));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&(Kind, String), &DynamicObject)> {
        self.0.iter()
    }
}

/// Applies the objects of one Registry.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    namespace: String,
    registry: String,
    owner_uid: String,
}

impl Applier {
    /// For the resource that `owner` points to.
    #[must_use]
    pub fn new(client: Client, namespace: String, owner: &OwnerReference) -> Self {
        Self { client, namespace, registry: owner.name.clone(), owner_uid: owner.uid.clone() }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    /// Ours are what this very resource controls. A volume outlives its Registry and is known by its label.
    #[must_use]
    pub fn is_ours(&self, kind: Kind, object: &DynamicObject) -> bool {
        let controlled = object
            .owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == self.owner_uid);
        controlled
            || (kind == Kind::PersistentVolumeClaim
                && object.labels().get(REGISTRY_LABEL).is_some_and(|name| *name == self.registry))
    }

    /// Everything of a kind that bears our label; whether it is ours, [`Self::is_ours`] says.
    pub async fn labelled(&self, kind: Kind) -> Result<Vec<DynamicObject>, Error> {
        let params = ListParams::default().labels(&format!("{REGISTRY_LABEL}={}", self.registry));
        let list = self.api(kind).list(&params).await.map_err(|source| Error::Api {
            verb: "list",
            kind,
            name: String::new(),
            source,
        })?;
        Ok(list.items)
    }

    /// Makes the server's object say what we say. `live` spares a look at objects that were just seen.
    pub async fn apply(&self, object: &Object, live: &mut Live) -> Result<(), Error> {
        let (kind, name) = (object.kind(), object.name());
        if !kind.is_readable() {
            return self.create_blindly(object).await;
        }
        let seen = match live.get(kind, name) {
            Some(seen) => Some(seen.clone()),
            None => self.get(kind, name).await?,
        };
        let answer = match seen {
            Some(seen) if !self.is_ours(kind, &seen) => {
                return Err(Error::NameTaken { kind, name: name.to_owned() });
            }
            Some(seen) if kind.is_made_once() => seen,
            Some(seen) => self.patch(object, seen.metadata.uid).await?,
            None if kind.is_made_once() => self.create(object).await?,
            None => self.patch(object, None).await?,
        };
        live.insert(kind, answer);
        Ok(())
    }

    /// Deletes what is ours and neither wanted nor worth keeping. Runs end by themselves and are kept for their results
    /// until their time to live is over.
    pub async fn prune(&self, wanted: &BTreeSet<(Kind, String)>, live: &mut Live) -> Result<(), Error> {
        let unwanted: Vec<_> = live
            .iter()
            .filter(|((kind, name), object)| {
                *kind != Kind::PersistentVolumeClaim
                    && !is_run(*kind, object)
                    && object.metadata.deletion_timestamp.is_none()
                    && !wanted.contains(&(*kind, name.clone()))
            })
            .map(|((kind, name), object)| (*kind, name.clone(), object.metadata.uid.clone()))
            .collect();
        for (kind, name, uid) in unwanted {
            self.delete(kind, &name, uid).await?;
            live.remove(kind, &name);
        }
        Ok(())
    }

    /// Deletes one object, if it is still the one that was seen.
    pub async fn delete(&self, kind: Kind, name: &str, uid: Option<String>) -> Result<(), Error> {
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        match self.api(kind).delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Api { verb: "delete", kind, name: name.to_owned(), source }),
        }
    }

    /// Applies one partial body under another manager's name, for instance to hand a field over.
    pub async fn apply_as(&self, manager: &str, kind: Kind, name: &str, body: Value) -> Result<(), Error> {
        let params = PatchParams::apply(manager).force();
        match self.api(kind).patch(name, &params, &Patch::Apply(body)).await {
            Ok(_) => Ok(()),
            Err(source) => Err(failed("hand over", kind, name, source)),
        }
    }

    async fn get(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, Error> {
        self.api(kind).get_opt(name).await.map_err(|source| failed("get", kind, name, source))
    }

    /// A uid makes the server refuse if the object was replaced since it was seen.
    async fn patch(&self, object: &Object, uid: Option<String>) -> Result<DynamicObject, Error> {
        let mut body = object.body().clone();
        if let (Some(uid), Some(metadata)) = (uid, body.get_mut("metadata").and_then(Value::as_object_mut)) {
            metadata.insert("uid".into(), Value::String(uid));
        }
        let params = PatchParams::apply(MANAGER).force();
        self.api(object.kind())
            .patch(object.name(), &params, &Patch::Apply(body))
            .await
            .map_err(|source| failed("apply", object.kind(), object.name(), source))
    }

    async fn create(&self, object: &Object) -> Result<DynamicObject, Error> {
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        self.api(object.kind())
            .create(&params, &object.dynamic())
            .await
            .map_err(|source| failed("create", object.kind(), object.name(), source))
    }

    /// An answer would show us the content of a Secret that we may have lost the race for; only its code is looked at.
    async fn create_blindly(&self, object: &Object) -> Result<(), Error> {
        match self.create(object).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Is it a run of a schedule, or one beside it?
#[must_use]
pub fn is_run(kind: Kind, object: &DynamicObject) -> bool {
    let runs = [Component::GarbageCollection, Component::Sync, Component::Retention].map(Component::as_str);
    let component = object.labels().get(COMPONENT_LABEL);
    kind == Kind::Job && component.is_some_and(|component| runs.contains(&component.as_str()))
}

/// What the server refused as wrong stays wrong; all else may pass.
fn failed(verb: &'static str, kind: Kind, name: &str, source: kube::Error) -> Error {
    match source {
        kube::Error::Api(status) if status.code == 422 || status.code == 400 => {
            Error::Rejected { kind, name: name.to_owned(), message: status.message.clone() }
        }
        source => Error::Api { verb, kind, name: name.to_owned(), source },
    }
}
