// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a row owns is not removed: asked of every key before it goes, by whoever queues or removes it.

use super::tx::Tx;
use super::values::form as form_of;
use crate::key::{Form, Generation, Key};
use crate::meta::Error;
use crate::meta::owner::{Owner, owner};

impl Tx<'_> {
    /// The first of `keys` that a row owns: from each key the row is derived that would.
    pub(super) async fn owned<'k>(&mut self, keys: &'k [Key]) -> Result<Option<&'k Key>, Error> {
        for key in keys {
            if self.is_owned(key).await? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// [`Error::Live`] if a row owns one of `keys`.
    pub(super) async fn ensure_unowned(&mut self, keys: &[Key]) -> Result<(), Error> {
        match self.owned(keys).await? {
            Some(key) => Err(Error::Live { key: key.to_string() }),
            None => Ok(()),
        }
    }

    async fn is_owned(&mut self, key: &Key) -> Result<bool, Error> {
        let question = match owner(key) {
            Owner::Registry => return Ok(true),
            Owner::Nobody => return Ok(false),
            Owner::Data(generation, form) => return self.owns_data(generation, form).await,
            Owner::Epoch(epoch) => {
                sqlx::query_as("SELECT 1 FROM meta WHERE max(epoch, claim) <= ?1").bind(epoch)
            }
            Owner::Link(repository, digest, generation) => sqlx::query_as(include_str!("sql/owns_link.sql"))
                .bind(repository.as_str())
                .bind(digest.to_bytes())
                .bind(generation.to_uuid()),
            Owner::Manifest { repository, digest, generation, marker } => {
                sqlx::query_as(include_str!("sql/owns_manifest.sql"))
                    .bind(repository.as_str())
                    .bind(digest.to_bytes())
                    .bind(generation.to_uuid())
                    .bind(marker)
            }
            Owner::Tag(repository, tag, generation) => sqlx::query_as(include_str!("sql/owns_tag.sql"))
                .bind(repository.as_str())
                .bind(tag.as_str())
                .bind(generation.to_uuid()),
        };
        Ok(self.one::<(i64,)>(question).await?.is_some())
    }

    async fn owns_data(&mut self, generation: Generation, form: Option<Form>) -> Result<bool, Error> {
        let question = sqlx::query_as(include_str!("sql/owns_data.sql")).bind(generation.to_uuid());
        let rows: Vec<(i64, Option<u32>)> = self.all(question).await?;
        for (code, tail) in rows {
            let owns = form_of("blobs", code, tail)?;
            // Of an open upload everything may be in use.
            if owns.is_none() || form.is_none() || owns == form {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
