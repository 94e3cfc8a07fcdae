// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role [`Trash`]: what may come back.

use async_trait::async_trait;
use bytes::Bytes;
use stowage_oci::{Digest, Name, Reference, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::tx::write;
use super::{PostgresStore, row};
use crate::key::Generation;
use crate::meta::{Epoch, Error, Mount, Restorable, Trash, TrashItem, Trashed};

#[derive(sqlx::FromRow)]
struct TrashedColumns {
    repository: String,
    tag: Option<String>,
    digest: Vec<u8>,
    media_type: String,
    size: i32,
    until: i64,
}

impl TrashedColumns {
    fn read(self) -> Result<Trashed, Error> {
        let digest = row::digest("manifests", &self.digest)?;
        let reference = match &self.tag {
            Some(tag) => Reference::Tag(row::parsed::<Tag>("tags", tag)?),
            None => Reference::Digest(digest),
        };
        Ok(Trashed {
            item: TrashItem { repository: row::parsed("repositories", &self.repository)?, reference },
            digest,
            media_type: self.media_type,
            size: row::number("manifests", self.size)?,
            until: row::number("tags", self.until)?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct RestorableColumns {
    digest: Vec<u8>,
    media_type: String,
    generation: Uuid,
    body: Option<Vec<u8>>,
    tombstone: Option<Uuid>,
}

impl RestorableColumns {
    fn read(self) -> Result<Restorable, Error> {
        Ok(Restorable {
            digest: row::digest("manifests", &self.digest)?,
            media_type: self.media_type,
            generation: Generation::from_uuid(self.generation),
            body: self.body.map(Bytes::from),
            tombstone: self.tombstone.map(Generation::from_uuid),
        })
    }
}

impl PostgresStore {
    async fn list_trash(
        &self,
        epoch: Epoch,
        repository: Option<&Name>,
        after: Option<&TrashItem>,
        limit: u32,
    ) -> Result<Vec<Trashed>, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let found: Vec<TrashedColumns> = sqlx::query_as(include_str!("sql/trash.sql"))
            .bind(repository.map(Name::as_str))
            .bind(after.map_or("", |after| after.repository.as_str()))
            .bind(after.map(TrashItem::place).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        let entries = found.into_iter().map(TrashedColumns::read).collect::<Result<_, Error>>()?;
        tx.undo(entries).await
    }

    async fn find_trashed(&self, epoch: Epoch, item: &TrashItem) -> Result<Option<Restorable>, Fault> {
        let repository = item.repository.as_str();
        let statement = match &item.reference {
            Reference::Tag(tag) => {
                sqlx::query_as(include_str!("sql/restorable_tag.sql")).bind(repository).bind(tag.as_str())
            }
            Reference::Digest(digest) => sqlx::query_as(include_str!("sql/restorable_manifest.sql"))
                .bind(repository)
                .bind(digest.to_bytes()),
        };
        let mut tx = self.begin_in(epoch).await?;
        let found: Option<RestorableColumns> = statement.fetch_optional(&mut *tx).await?;
        let found = found.map(RestorableColumns::read).transpose()?;
        tx.undo(found).await
    }

    async fn find_trashed_referrers(
        &self,
        epoch: Epoch,
        repository: &Name,
        subject: Digest,
    ) -> Result<Vec<Digest>, Fault> {
        let mut tx = self.begin_in(epoch).await?;
        let found: Vec<Vec<u8>> = sqlx::query_scalar(include_str!("sql/trashed_referrers.sql"))
            .bind(repository.as_str())
            .bind(subject.to_bytes())
            .fetch_all(&mut *tx)
            .await?;
        let digests = found.iter().map(|bytes| row::digest("manifests", bytes));
        let digests = digests.collect::<Result<_, Error>>()?;
        tx.undo(digests).await
    }
}

#[async_trait]
impl Trash for PostgresStore {
    async fn trash(
        &self,
        epoch: Epoch,
        repository: Option<&Name>,
        after: Option<&TrashItem>,
        limit: u32,
    ) -> Result<Vec<Trashed>, Error> {
        write(|| self.list_trash(epoch, repository, after, limit)).await
    }

    async fn trashed(&self, epoch: Epoch, item: &TrashItem) -> Result<Option<Restorable>, Error> {
        write(|| self.find_trashed(epoch, item)).await
    }

    async fn trashed_referrers(
        &self,
        epoch: Epoch,
        repository: &Name,
        subject: &Digest,
    ) -> Result<Vec<Digest>, Error> {
        write(|| self.find_trashed_referrers(epoch, repository, *subject)).await
    }

    async fn begin_showing(
        &self,
        epoch: Epoch,
        repository: &Name,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Option<Mount>, Error> {
        write(|| self.try_begin_mount(epoch, None, repository, *digest, generation)).await
    }
}
