// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a row owns is not removed: asked of every key before it goes, by whoever queues or removes it.

use uuid::Uuid;

use super::error::Fault;
use super::row;
use super::tx::Connection;
use crate::key::{Form, Generation, Key};
use crate::meta::Error;
use crate::meta::owner::{Owner, owner};

/// The first of `keys` that a row owns: from each key the row is derived that would.
pub(super) async fn owned(tx: &mut Connection, keys: &[Key]) -> Result<Option<Key>, Fault> {
    let mut asked = Asked::default();
    for key in keys {
        match owner(key) {
            Owner::Registry => return Ok(Some(key.clone())),
            Owner::Nobody => {}
            Owner::Epoch(epoch) => asked.epochs.push((key, epoch)),
            Owner::Run(generation) => asked.runs.push((key, generation)),
            Owner::Data(generation, form) => asked.data.push((key, generation, form)),
            Owner::Link(repository, digest, generation) => {
                asked.links.push(key, repository.as_str(), digest.to_bytes(), generation);
            }
            Owner::Manifest { repository, digest, generation, marker } => {
                asked.manifests.push(key, repository.as_str(), digest.to_bytes(), generation);
                asked.markers.push(marker);
            }
            Owner::Tag(repository, tag, generation) => {
                asked.tags.push(key, repository.as_str(), tag.as_str(), generation);
            }
            Owner::Ledger(generation) => asked.ledger.push((key, generation)),
        }
    }
    asked.first_owned(tx).await
}

/// [`Error::Live`] if a row owns one of `keys`.
pub(super) async fn ensure_unowned(tx: &mut Connection, keys: &[Key]) -> Result<(), Fault> {
    match owned(tx, keys).await? {
        Some(key) => Err(Error::Live { key: key.to_string() }.into()),
        None => Ok(()),
    }
}

/// Keys of one kind as columns.
struct Columns<'a, T> {
    keys: Vec<&'a Key>,
    repositories: Vec<&'a str>,
    names: Vec<T>,
    generations: Vec<Uuid>,
}

impl<T> Default for Columns<'_, T> {
    fn default() -> Self {
        Self { keys: Vec::new(), repositories: Vec::new(), names: Vec::new(), generations: Vec::new() }
    }
}

impl<'a, T> Columns<'a, T> {
    fn push(&mut self, key: &'a Key, repository: &'a str, name: T, generation: Generation) {
        self.keys.push(key);
        self.repositories.push(repository);
        self.names.push(name);
        self.generations.push(generation.to_uuid());
    }

    /// By its place, from 1.
    fn at(&self, place: Option<i64>) -> Option<Key> {
        let place = usize::try_from(place?.checked_sub(1)?).ok()?;
        self.keys.get(place).map(|key| (*key).clone())
    }
}

#[derive(Default)]
struct Asked<'a> {
    epochs: Vec<(&'a Key, u32)>,
    runs: Vec<(&'a Key, Generation)>,
    data: Vec<(&'a Key, Generation, Option<Form>)>,
    links: Columns<'a, Vec<u8>>,
    manifests: Columns<'a, Vec<u8>>,
    markers: Vec<bool>,
    tags: Columns<'a, &'a str>,
    ledger: Vec<(&'a Key, Generation)>,
}

impl Asked<'_> {
    async fn first_owned(&self, tx: &mut Connection) -> Result<Option<Key>, Fault> {
        if let Some(key) = self.owned_epoch(&mut *tx).await? {
            return Ok(Some(key));
        }
        if let Some(key) = self.owned_data(&mut *tx).await? {
            return Ok(Some(key));
        }
        if let Some(key) =
            owned_by(&mut *tx, "SELECT gen FROM promotions WHERE gen = ANY ($1) LIMIT 1", &self.ledger)
                .await?
        {
            return Ok(Some(key));
        }
        if let Some(key) =
            owned_by(&mut *tx, "SELECT gen FROM runs WHERE gen = ANY ($1) LIMIT 1", &self.runs).await?
        {
            return Ok(Some(key));
        }
        if !self.links.keys.is_empty() {
            let place: Option<i64> = sqlx::query_scalar(include_str!("sql/owned_links.sql"))
                .bind(&self.links.repositories)
                .bind(&self.links.names)
                .bind(&self.links.generations)
                .fetch_optional(&mut *tx)
                .await?;
            if place.is_some() {
                return Ok(self.links.at(place));
            }
        }
        if !self.manifests.keys.is_empty() {
            let place: Option<i64> = sqlx::query_scalar(include_str!("sql/owned_manifests.sql"))
                .bind(&self.manifests.repositories)
                .bind(&self.manifests.names)
                .bind(&self.manifests.generations)
                .bind(&self.markers)
                .fetch_optional(&mut *tx)
                .await?;
            if place.is_some() {
                return Ok(self.manifests.at(place));
            }
        }
        if self.tags.keys.is_empty() {
            return Ok(None);
        }
        let place: Option<i64> = sqlx::query_scalar(include_str!("sql/owned_tags.sql"))
            .bind(&self.tags.repositories)
            .bind(&self.tags.names)
            .bind(&self.tags.generations)
            .fetch_optional(tx)
            .await?;
        Ok(self.tags.at(place))
    }

    async fn owned_epoch(&self, tx: &mut Connection) -> Result<Option<Key>, Fault> {
        if self.epochs.is_empty() {
            return Ok(None);
        }
        let current: i64 =
            sqlx::query_scalar("SELECT greatest(epoch, claim) FROM meta").fetch_one(tx).await?;
        let current: u32 = row::number("meta", current)?;
        Ok(self.epochs.iter().find(|(_, epoch)| *epoch >= current).map(|(key, _)| (*key).clone()))
    }

    async fn owned_data(&self, tx: &mut Connection) -> Result<Option<Key>, Fault> {
        if self.data.is_empty() {
            return Ok(None);
        }
        let mut generations: Vec<Uuid> =
            self.data.iter().map(|(_, generation, _)| generation.to_uuid()).collect();
        generations.sort_unstable();
        generations.dedup();
        let rows: Vec<(Uuid, i16, Option<i32>)> =
            sqlx::query_as(include_str!("sql/owned_data.sql")).bind(generations).fetch_all(tx).await?;
        for (generation, form, tail) in rows {
            let generation = Generation::from_uuid(generation);
            let form = row::form("blobs", form, tail)?;
            // Of an open upload everything may be in use.
            let owns = |of: Option<Form>| form.is_none() || of.is_none() || form == of;
            let owned = self.data.iter().find(|(_, of, part)| *of == generation && owns(*part));
            if let Some((key, ..)) = owned {
                return Ok(Some((*key).clone()));
            }
        }
        Ok(None)
    }
}

/// The first of `keys` whose generation `select` finds.
async fn owned_by(
    tx: &mut Connection,
    select: &'static str,
    keys: &[(&Key, Generation)],
) -> Result<Option<Key>, Fault> {
    if keys.is_empty() {
        return Ok(None);
    }
    let generations: Vec<Uuid> = keys.iter().map(|(_, generation)| generation.to_uuid()).collect();
    let found: Option<Uuid> = sqlx::query_scalar(select).bind(generations).fetch_optional(tx).await?;
    let found = found.map(Generation::from_uuid);
    Ok(keys.iter().find(|(_, generation)| Some(*generation) == found).map(|(key, _)| (*key).clone()))
}
