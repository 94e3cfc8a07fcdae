// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The reaper: what writers left unfinished takes effect or is taken back; what uploads left goes.

use uuid::Uuid;

use super::SqliteStore;
use super::blobs::NewLink;
use super::queue::Owed;
use super::tx::Tx;
use super::uploads::EndedColumns;
use super::values::{from_json, unreadable};
use crate::key::Key;
use crate::meta::steps::{self, Finished, Found, Intended, Push};
use crate::meta::{Epoch, Error, ExpiredIntent, IntentKind, ManifestId, Reaped};

#[derive(sqlx::FromRow)]
pub(super) struct IntentColumns {
    id: i64,
    kind: String,
    manifest_id: Option<i64>,
    repo_id: Option<i32>,
    keys: String,
    ledger: Option<String>,
}

impl IntentColumns {
    pub(super) fn into_intent(self) -> Result<ExpiredIntent, Error> {
        let kind = match (self.kind.as_str(), self.repo_id, self.manifest_id) {
            ("m", Some(repository), Some(manifest)) => {
                IntentKind::Manifest { repository, manifest: ManifestId(manifest) }
            }
            ("l", Some(repository), _) => IntentKind::Link { repository },
            ("r", ..) => IntentKind::Run,
            (other, ..) => return Err(unreadable("intents", other)),
        };
        let ledger = self.ledger.map(|text| from_json("intents", &text)).transpose()?;
        Ok(ExpiredIntent { id: self.id, kind, keys: from_json("intents", &self.keys)?, ledger })
    }
}

impl Tx<'_> {
    async fn reap_push(&mut self, store: &SqliteStore, push: &Push, found: &[Key]) -> Result<bool, Error> {
        let found = Found::Only(found);
        // Nobody waits for it any more: a tag that went with the manifest it named stays gone.
        let finished = self.finish_push(store, push, found).await? != Finished::Withdrawn;
        let withdrawn: Vec<Key> = if finished {
            let tags = push.tags.iter().map(|record| push.tag_key(record));
            tags.chain(push.ledger_key()).filter(|key| !found.has(key)).collect()
        } else {
            push.keys()
        };
        self.ensure_unowned(&withdrawn).await?;
        if let (true, true, Some(key)) = (finished, found.record(push), found.lacks_referrer(push)) {
            let (steps, about) = (vec![steps::write(&key)], Some(push.manifest.0));
            self.owe(&Owed { steps, about, ..Owed::default() }).await?;
        }
        Ok(finished)
    }

    /// Nobody was told of it: it goes.
    async fn reap_run(&mut self, store: &SqliteStore, key: &Key) -> Result<bool, Error> {
        self.ensure_unowned(std::slice::from_ref(key)).await?;
        self.discard(vec![steps::remove(key)], store.timings.tombstone_delay).await?;
        Ok(false)
    }

    async fn reap_mount(
        &mut self,
        store: &SqliteStore,
        link: &NewLink<'_>,
        found: &[Key],
    ) -> Result<bool, Error> {
        let (repository, digest, generation) = (link.repository.clone(), link.digest, link.generation);
        let key = Key::Link { repository, digest, generation };
        let select = "SELECT id FROM blobs WHERE digest = ?1 AND form <> 0";
        let stored: Option<(i64,)> = if found.contains(&key) {
            self.one(sqlx::query_as(select).bind(digest.to_bytes())).await?
        } else {
            None
        };
        let shown = if let Some((blob,)) = stored {
            self.show_link(store, link, blob).await?
        } else {
            self.discard_link(store, link).await?;
            false
        };
        if !shown {
            self.ensure_unowned(std::slice::from_ref(&key)).await?;
        }
        Ok(stored.is_some())
    }
}

impl SqliteStore {
    pub(super) async fn reap_one_intent(
        &self,
        epoch: Epoch,
        intent: &ExpiredIntent,
        found: &[Key],
    ) -> Result<Reaped, Error> {
        let Some(intended) = Intended::by(intent) else {
            return Err(unreadable("intents", "keys of another version"));
        };
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let take = sqlx::query_as(include_str!("sql/take_expired_intent.sql")).bind(intent.id);
        if tx.one::<(i64,)>(take).await?.is_none() {
            tx.rollback().await?;
            return Ok(Reaped::Gone);
        }
        let finished = match intended {
            Intended::Nothing => true,
            Intended::Run(key) => tx.reap_run(self, &key).await?,
            Intended::Push(push) => tx.reap_push(self, &push, found).await?,
            Intended::Link { repository_id, repository, digest, generation } => {
                let link = NewLink { repository_id, repository: &repository, digest, generation };
                tx.reap_mount(self, &link, found).await?
            }
        };
        tx.commit().await?;
        Ok(if finished { Reaped::Finished } else { Reaped::Withdrawn })
    }

    pub(super) async fn reap_one_upload(&self, epoch: Epoch, id: Uuid) -> Result<bool, Error> {
        let mut tx = self.writer.begin_collecting(epoch).await?;
        let end = sqlx::query_as(include_str!("sql/end_expired_upload.sql")).bind(id);
        let ended = tx.one::<EndedColumns>(end).await?.map(EndedColumns::into_ended).transpose()?;
        if let Some(ended) = &ended {
            tx.discard_upload(ended, self.timings.tombstone_delay).await?;
        }
        tx.commit().await?;
        Ok(ended.is_some())
    }
}
