// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The last reading: every manifest that must be there with every blob of it, and every tag, when all is quiet.
//!
//! What is read is recorded like anything else, and judged with it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use stowage_oci::Digest;
use tokio::task::JoinSet;

use super::client::Client;
use super::{Load, Queue};
use crate::history::{Action, Operation, Recorder, Reference, survivors};

enum Task {
    Manifest(String, Digest, Vec<Digest>),
    Tag(String, String),
    Tags(String),
}

/// Reads all that must be there.
pub(super) async fn read_all(load: &Arc<Load>, recorder: &Arc<Recorder>) -> Result<()> {
    let tasks: Arc<Queue<Task>> = Arc::new(Mutex::new(tasks(load, recorder)));
    let mut readers = JoinSet::new();
    for number in 0..load.clients {
        let (recorder, tasks) = (Arc::clone(recorder), Arc::clone(&tasks));
        let rng = StdRng::seed_from_u64(u64::from(number));
        let mut client = Client::new(load.clients + number, Arc::clone(load), rng);
        readers.spawn(async move {
            while let Some(task) = next(&tasks) {
                read(&mut client, &recorder, task).await;
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.context("join a reader")?;
    }
    Ok(())
}

fn next(tasks: &Queue<Task>) -> Option<Task> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn tasks(load: &Load, recorder: &Recorder) -> VecDeque<Task> {
    let history = recorder.history();
    let blobs = blobs_of(&history.operations);
    let manifests = survivors(&history).into_iter().map(|(repository, digest)| {
        let blobs = blobs.get(&(repository, digest)).map(|blobs| blobs.to_vec()).unwrap_or_default();
        Task::Manifest(repository.to_owned(), digest, blobs)
    });
    let tags = load.repositories.iter().flat_map(|repository| {
        (0..load.tags).map(move |tag| Task::Tag(repository.clone(), format!("t{tag}")))
    });
    let lists = load.repositories.iter().map(|repository| Task::Tags(repository.clone()));
    manifests.chain(tags).chain(copied(load, &history.operations)).chain(lists).collect()
}

/// The tags of a registry that is mirrored. Without it nobody can say of any other that there is none.
fn copied(load: &Load, operations: &[Operation]) -> Vec<Task> {
    let copies = load.upstream.iter().flat_map(|upstream| &upstream.repositories);
    let copies: BTreeSet<&String> = copies.collect();
    let pushed = operations.iter().filter_map(|operation| match &operation.action {
        Action::PushManifest { repository, tag: Some(tag), .. } if copies.contains(repository) => {
            Some((repository.clone(), tag.clone()))
        }
        _ => None,
    });
    let tags: BTreeSet<(String, String)> = pushed.collect();
    tags.into_iter().map(|(repository, tag)| Task::Tag(repository, tag)).collect()
}

/// The blobs that manifests list.
fn blobs_of(operations: &[Operation]) -> HashMap<(&str, Digest), &[Digest]> {
    fn blobs(operation: &Operation) -> Option<((&str, Digest), &[Digest])> {
        match &operation.action {
            Action::PushManifest { repository, digest, blobs, .. } => {
                Some(((repository.as_str(), *digest), blobs.as_slice()))
            }
            _ => None,
        }
    }
    operations.iter().filter_map(blobs).collect()
}

async fn read(client: &mut Client, recorder: &Recorder, task: Task) {
    match task {
        Task::Manifest(repository, digest, blobs) => {
            client.pull_manifest(recorder, &repository, Reference::Digest(digest)).await;
            for blob in blobs {
                client.pull_blob(recorder, &repository, blob).await;
            }
        }
        Task::Tag(repository, tag) => {
            client.pull_manifest(recorder, &repository, Reference::Tag(tag)).await;
        }
        Task::Tags(repository) => client.list_tags(recorder, &repository).await,
    }
}
