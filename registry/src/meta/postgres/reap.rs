// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The reaper: what writers left unfinished takes effect or is taken back; what uploads left goes.

use std::time::Duration;

use sqlx::types::Json;
use stowage_oci::{Digest, Name};
use uuid::Uuid;

use super::commit::link;
use super::error::Fault;
use super::queue::Removals;
use super::receive::lock_ending;
use super::tx::{Connection, Tx};
use super::{PostgresStore, guard, row};
use crate::key::{Generation, Key};
use crate::meta::steps::{self, Finished, Found, Intended, Push};
use crate::meta::{Epoch, Error, ExpiredIntent, IntentKind, LedgerRecord, ManifestId, Reaped};

#[derive(sqlx::FromRow)]
pub(super) struct IntentColumns {
    id: i64,
    kind: String,
    manifest_id: Option<i64>,
    repo_id: Option<i32>,
    keys: Vec<String>,
    ledger: Option<Json<Box<LedgerRecord>>>,
}

impl IntentColumns {
    pub(super) fn read(self) -> Result<ExpiredIntent, Error> {
        let kind = match (self.kind.as_str(), self.repo_id, self.manifest_id) {
            ("m", Some(repository), Some(manifest)) => {
                IntentKind::Manifest { repository, manifest: ManifestId(manifest) }
            }
            ("l", Some(repository), _) => IntentKind::Link { repository },
            ("r", ..) => IntentKind::Run,
            (other, ..) => return Err(row::unreadable("intents", other)),
        };
        let ledger = self.ledger.map(|Json(record)| record);
        Ok(ExpiredIntent { id: self.id, kind, keys: self.keys, ledger })
    }
}

/// A mount whose link record is there.
struct Mounted {
    repository_id: i32,
    repository: Name,
    digest: Digest,
    generation: Generation,
}

impl PostgresStore {
    pub(super) async fn try_reap_intent(
        &self,
        epoch: Epoch,
        intent: &ExpiredIntent,
        found: &[Key],
    ) -> Result<Reaped, Fault> {
        let Some(intended) = Intended::by(intent) else {
            return Err(row::unreadable("intents", "keys of another version").into());
        };
        let mut tx = self.begin_collecting(epoch).await?;
        let taken: Option<i64> = sqlx::query_scalar(include_str!("sql/take_expired_intent.sql"))
            .bind(intent.id)
            .fetch_optional(&mut *tx)
            .await?;
        if taken.is_none() {
            return tx.undo(Reaped::Gone).await;
        }
        let finished = match intended {
            Intended::Nothing => true,
            Intended::Run(key) => self.reap_run(&mut tx, &key).await?,
            Intended::Push(push) => self.reap_push(&mut tx, &push, found).await?,
            Intended::Link { repository_id, repository, digest, generation } => {
                let mount = Mounted { repository_id, repository, digest, generation };
                self.reap_mount(&mut tx, &mount, found).await?
            }
        };
        tx.commit().await?;
        Ok(if finished { Reaped::Finished } else { Reaped::Withdrawn })
    }

    async fn reap_push(&self, tx: &mut Tx, push: &Push, found: &[Key]) -> Result<bool, Fault> {
        let found = Found::Only(found);
        // Nobody waits for it any more: a tag that went with the manifest it named stays gone.
        let finished = self.finish_push(&mut *tx, push, found).await? != Finished::Withdrawn;
        let withdrawn: Vec<Key> = if finished {
            let tags = push.tags.iter().map(|record| push.tag_key(record));
            tags.chain(push.ledger_key()).filter(|key| !found.has(key)).collect()
        } else {
            push.keys()
        };
        guard::ensure_unowned(&mut *tx, &withdrawn).await?;
        if let (true, true, Some(key)) = (finished, found.record(push), found.lacks_referrer(push)) {
            let then_ref = Some(push.manifest.0);
            let owed = Removals { steps: vec![steps::write(&key)], then_ref, ..Removals::default() };
            owed.queue(&mut *tx, Duration::ZERO).await?;
        }
        Ok(finished)
    }

    /// Nobody was told of it: it goes.
    async fn reap_run(&self, tx: &mut Connection, key: &Key) -> Result<bool, Fault> {
        guard::ensure_unowned(&mut *tx, std::slice::from_ref(key)).await?;
        Removals::from(vec![steps::remove(key)]).queue(tx, self.timings.tombstone_delay).await?;
        Ok(false)
    }

    async fn reap_mount(&self, tx: &mut Connection, mount: &Mounted, found: &[Key]) -> Result<bool, Fault> {
        let Mounted { repository_id, repository, digest, generation } = mount;
        let key = Key::Link { repository: repository.clone(), digest: *digest, generation: *generation };
        let blob: Option<i64> = if found.contains(&key) {
            sqlx::query_scalar(include_str!("sql/lock_stored.sql"))
                .bind(digest.to_bytes())
                .fetch_optional(&mut *tx)
                .await?
        } else {
            None
        };
        let shown = match blob {
            Some(blob) => {
                let grace = self.timings.lease;
                link(&mut *tx, *repository_id, *digest, blob, *generation, grace).await?.generation
                    == *generation
            }
            None => false,
        };
        if !shown {
            guard::ensure_unowned(&mut *tx, std::slice::from_ref(&key)).await?;
            Removals::from(vec![steps::remove(&key)]).queue(tx, self.timings.tombstone_delay).await?;
        }
        Ok(blob.is_some())
    }

    pub(super) async fn try_reap_upload(&self, epoch: Epoch, id: Uuid) -> Result<bool, Fault> {
        let mut tx = self.begin_collecting(epoch).await?;
        let locked: Option<(Option<Uuid>,)> = sqlx::query_as(include_str!("sql/lock_expired_upload.sql"))
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some((token,)) = locked else { return tx.undo(false).await };
        // In a statement after the lock: a commit that was quicker is seen.
        let Some(left) = lock_ending(&mut tx, id, token).await? else { return tx.undo(false).await };
        self.end_upload(&mut tx, id, &left).await?;
        tx.commit().await?;
        Ok(true)
    }
}
