// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a row owns is not removed: asked of every key before it goes, by whoever queues or removes it.

use serde::Serialize;
use uuid::Uuid;

use super::tx::Tx;
use super::values::{digest_hex, form as form_of, generation_hex, to_json};
use crate::key::{Form, Generation, Key};
use crate::meta::Error;
use crate::meta::owner::{Owner, owner};

/// Keys of one kind, with what the statement asks of each.
struct Questions<'k, Q> {
    keys: Vec<&'k Key>,
    asked: Vec<Q>,
}

impl<Q> Default for Questions<'_, Q> {
    fn default() -> Self {
        Self { keys: Vec::new(), asked: Vec::new() }
    }
}

impl<'k, Q: Serialize> Questions<'k, Q> {
    fn push(&mut self, key: &'k Key, asked: Q) {
        self.keys.push(key);
        self.asked.push(asked);
    }
}

#[derive(Default)]
struct Asked<'k> {
    epochs: Vec<(&'k Key, u32)>,
    runs: Questions<'k, String>,
    data: Vec<(&'k Key, Generation, Option<Form>)>,
    links: Questions<'k, (&'k str, String, String)>,
    manifests: Questions<'k, (&'k str, String, String, bool)>,
    tags: Questions<'k, (&'k str, &'k str, String)>,
    ledger: Questions<'k, String>,
}

impl Tx<'_> {
    /// One of `keys` that a row owns: from each key the row is derived that would.
    pub(super) async fn owned<'k>(&mut self, keys: &'k [Key]) -> Result<Option<&'k Key>, Error> {
        let mut asked = Asked::default();
        for key in keys {
            match owner(key) {
                Owner::Registry => return Ok(Some(key)),
                Owner::Nobody => {}
                Owner::Epoch(epoch) => asked.epochs.push((key, epoch)),
                Owner::Run(generation) => asked.runs.push(key, generation_hex(generation)),
                Owner::Data(generation, form) => asked.data.push((key, generation, form)),
                Owner::Link(repository, digest, generation) => {
                    asked
                        .links
                        .push(key, (repository.as_str(), digest_hex(&digest), generation_hex(generation)));
                }
                Owner::Manifest { repository, digest, generation, marker } => {
                    let record =
                        (repository.as_str(), digest_hex(&digest), generation_hex(generation), marker);
                    asked.manifests.push(key, record);
                }
                Owner::Tag(repository, tag, generation) => {
                    asked.tags.push(key, (repository.as_str(), tag.as_str(), generation_hex(generation)));
                }
                Owner::Ledger(generation) => asked.ledger.push(key, generation_hex(generation)),
            }
        }
        if let Some(key) = self.owned_epoch(&asked.epochs).await? {
            return Ok(Some(key));
        }
        if let Some(key) = self.owned_data(&asked.data).await? {
            return Ok(Some(key));
        }
        if let Some(key) = self.first(&asked.runs, include_str!("sql/owned_runs.sql")).await? {
            return Ok(Some(key));
        }
        if let Some(key) = self.first(&asked.links, include_str!("sql/owned_links.sql")).await? {
            return Ok(Some(key));
        }
        if let Some(key) = self.first(&asked.manifests, include_str!("sql/owned_manifests.sql")).await? {
            return Ok(Some(key));
        }
        if let Some(key) = self.first(&asked.tags, include_str!("sql/owned_tags.sql")).await? {
            return Ok(Some(key));
        }
        self.first(&asked.ledger, include_str!("sql/owned_ledger.sql")).await
    }

    /// [`Error::Live`] if a row owns one of `keys`.
    pub(super) async fn ensure_unowned(&mut self, keys: &[Key]) -> Result<(), Error> {
        match self.owned(keys).await? {
            Some(key) => Err(Error::Live { key: key.to_string() }),
            None => Ok(()),
        }
    }

    async fn first<'k, Q: Serialize>(
        &mut self,
        questions: &Questions<'k, Q>,
        statement: &'static str,
    ) -> Result<Option<&'k Key>, Error> {
        if questions.keys.is_empty() {
            return Ok(None);
        }
        let place: Option<(i64,)> =
            self.one(sqlx::query_as(statement).bind(to_json(&questions.asked))).await?;
        let place = place.and_then(|(place,)| usize::try_from(place).ok());
        Ok(place.and_then(|place| questions.keys.get(place).copied()))
    }

    async fn owned_epoch<'k>(&mut self, asked: &[(&'k Key, u32)]) -> Result<Option<&'k Key>, Error> {
        if asked.is_empty() {
            return Ok(None);
        }
        let (current,): (u32,) = self.single(sqlx::query_as("SELECT max(epoch, claim) FROM meta")).await?;
        Ok(asked.iter().find(|(_, epoch)| *epoch >= current).map(|(key, _)| *key))
    }

    async fn owned_data<'k>(
        &mut self,
        asked: &[(&'k Key, Generation, Option<Form>)],
    ) -> Result<Option<&'k Key>, Error> {
        if asked.is_empty() {
            return Ok(None);
        }
        let generations: Vec<String> =
            asked.iter().map(|(_, generation, _)| generation_hex(*generation)).collect();
        let question = sqlx::query_as(include_str!("sql/owned_data.sql")).bind(to_json(&generations));
        let rows: Vec<(Uuid, i64, Option<u32>)> = self.all(question).await?;
        for (generation, code, tail) in rows {
            let (generation, form) = (Generation::from_uuid(generation), form_of("blobs", code, tail)?);
            // Of an open upload everything may be in use.
            let owns = |of: Option<Form>| form.is_none() || of.is_none() || form == of;
            if let Some((key, ..)) = asked.iter().find(|(_, of, part)| *of == generation && owns(*part)) {
                return Ok(Some(*key));
            }
        }
        Ok(None)
    }
}
