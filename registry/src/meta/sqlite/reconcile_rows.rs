// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Statements of a comparison. There is one writer, so nothing needs a lock.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::queue::Owed as Queued;
use super::tags::TagColumns;
use super::tx::Tx;
use super::values::{
    digest as digest_column, digests_json, form, form_columns, from_json, generation_hex, integer, location,
    micros, plan_columns, to_json, unreadable,
};
use crate::key::{Form, Generation, Key};
use crate::meta::reconcile::{
    BlobFact, Holders, Kind, LedgerClaim, Life, LinkFact, Loss, ManifestFact, NewManifest, Owed, Rows, State,
    TagFact, TagSet,
};
use crate::meta::{
    Candidate, Epoch, Error, LedgerRecord, Location, ManifestFacts, RepositoryId, Timings, steps,
};

/// The rows, within a transaction.
pub(super) struct SqliteRows<'a, 'b> {
    pub(super) tx: &'a mut Tx<'b>,
    pub(super) timings: &'a Timings,
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    id: i64,
    digest: Vec<u8>,
    r#gen: Option<Uuid>,
    form: i64,
    tail: Option<u32>,
    size: i64,
}

fn size(column: i64) -> Result<u64, Error> {
    u64::try_from(column).map_err(|error| unreadable("blobs", error))
}

/// A list of generations to bind: `unhex(value)` of its elements is what columns hold.
fn generations_json(generations: &[Generation]) -> String {
    to_json(&generations.iter().copied().map(generation_hex).collect::<Vec<_>>())
}

impl SqliteRows<'_, '_> {
    async fn insert_blob(&mut self, digest: Digest, location: Option<Location>) -> Result<bool, Error> {
        let (form, tail) = location.map_or((0, None), |location| form_columns(location.form));
        let insert = sqlx::query(include_str!("sql/adopt_blob.sql"))
            .bind(digest.to_bytes())
            .bind(location.map_or(0, |location| integer(location.size)))
            .bind(location.map(|location| location.generation.to_uuid()))
            .bind(form)
            .bind(tail);
        Ok(self.tx.run(insert).await? > 0)
    }

    async fn insert_manifest(
        &mut self,
        repository: RepositoryId,
        manifest: &NewManifest<'_>,
    ) -> Result<Option<i64>, Error> {
        let NewManifest { generation, facts, trashed } = manifest;
        let insert = sqlx::query_as(include_str!("sql/adopt_manifest.sql"))
            .bind(repository)
            .bind(facts.digest.to_bytes())
            .bind(generation.to_uuid())
            .bind(trashed.map(micros))
            .bind(integer(generation.milliseconds() * 1000))
            .bind(facts.media_type.as_str())
            .bind(facts.artifact_type.as_deref())
            .bind(facts.subject.map(|subject| subject.to_bytes()))
            .bind(facts.annotations.as_ref().map(to_json))
            .bind(facts.size)
            .bind(facts.body.as_deref());
        let inserted: Option<(i64,)> = self.tx.one(insert).await?;
        if let (Some((id,)), Some(retain)) = (inserted, trashed) {
            self.tx.candidate(Candidate::Trashed, id, *retain).await?;
        }
        Ok(inserted.map(|(id,)| id))
    }
}

impl Rows for SqliteRows<'_, '_> {
    type Fault = Error;

    async fn blob_facts(
        &mut self,
        digests: &[Digest],
        _lock: bool,
    ) -> Result<HashMap<Digest, BlobFact>, Error> {
        let select = sqlx::query_as(include_str!("sql/blob_facts.sql")).bind(digests_json(digests));
        let found: Vec<BlobColumns> = self.tx.all(select).await?;
        let facts = found.into_iter().map(|found| {
            let location = location(found.r#gen, found.form, found.tail, size(found.size)?)?;
            Ok((digest_column("blobs", &found.digest)?, BlobFact { id: found.id, location }))
        });
        facts.collect()
    }

    async fn insert_blobs(&mut self, blobs: &[(Digest, Option<Location>)]) -> Result<HashSet<Digest>, Error> {
        let mut inserted = HashSet::new();
        for (digest, location) in blobs {
            if self.insert_blob(*digest, *location).await? {
                inserted.insert(*digest);
            }
        }
        Ok(inserted)
    }

    async fn set_blobs(&mut self, blobs: &[(i64, Option<Location>)]) -> Result<(), Error> {
        for (id, location) in blobs {
            let update = match location {
                None => sqlx::query("UPDATE blobs SET form = 0 WHERE id = ?1").bind(id),
                Some(location) => {
                    let (form, tail) = form_columns(location.form);
                    sqlx::query(include_str!("sql/move_blob.sql"))
                        .bind(id)
                        .bind(integer(location.size))
                        .bind(location.generation.to_uuid())
                        .bind(form)
                        .bind(tail)
                }
            };
            self.tx.run(update).await?;
        }
        Ok(())
    }

    async fn repository_row(&mut self, name: &Name, create: bool) -> Result<Option<RepositoryId>, Error> {
        if create {
            return self.tx.repository(name).await.map(Some);
        }
        let select = "SELECT id FROM repositories WHERE name = ?1";
        let row: Option<(i32,)> = self.tx.one(sqlx::query_as(select).bind(name.as_str())).await?;
        Ok(row.map(|(id,)| id))
    }

    async fn link_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        _lock: bool,
    ) -> Result<HashMap<Digest, LinkFact>, Error> {
        let select =
            sqlx::query_as(include_str!("sql/link_facts.sql")).bind(repository).bind(digests_json(digests));
        let found: Vec<(i64, Vec<u8>, Option<Uuid>)> = self.tx.all(select).await?;
        let facts = found.into_iter().map(|(id, digest, generation)| {
            let fact = LinkFact { id, generation: generation.map(Generation::from_uuid) };
            Ok((digest_column("repo_blobs", &digest)?, fact))
        });
        facts.collect()
    }

    async fn insert_links(
        &mut self,
        repository: RepositoryId,
        links: &[(Digest, Option<Generation>)],
    ) -> Result<HashSet<Digest>, Error> {
        let mut inserted = HashSet::new();
        for (digest, generation) in links {
            let insert = sqlx::query(include_str!("sql/adopt_link.sql"))
                .bind(repository)
                .bind(digest.to_bytes())
                .bind(generation.map(Generation::to_uuid));
            if self.tx.run(insert).await? > 0 {
                inserted.insert(*digest);
            }
        }
        Ok(inserted)
    }

    async fn set_links(&mut self, links: &[(i64, Option<Generation>)]) -> Result<(), Error> {
        let update = "UPDATE repo_blobs SET gen = ?2, touched = (SELECT now FROM clock) WHERE id = ?1";
        for (id, generation) in links {
            self.tx.run(sqlx::query(update).bind(id).bind(generation.map(Generation::to_uuid))).await?;
        }
        Ok(())
    }

    async fn delete_link(&mut self, link: i64) -> Result<(), Error> {
        let delete = "DELETE FROM repo_blobs WHERE id = ?1 RETURNING blob_id";
        let row: Option<(i64,)> = self.tx.one(sqlx::query_as(delete).bind(link)).await?;
        if let Some((blob,)) = row {
            self.tx.candidate(Candidate::Blob, blob, self.timings.blob_grace).await?;
        }
        Ok(())
    }

    async fn holders(
        &mut self,
        repository: RepositoryId,
        link: i64,
        digest: Digest,
    ) -> Result<Holders, Error> {
        let select = sqlx::query_as(include_str!("sql/link_holders.sql"))
            .bind(link)
            .bind(repository)
            .bind(digest.to_bytes());
        let parents: Vec<(Vec<u8>, i64)> = self.tx.all(select).await?;
        let live = parents.iter().filter(|(_, state)| *state == 1);
        Ok(Holders {
            live: live.map(|(bytes, _)| digest_column("manifests", bytes)).collect::<Result<_, _>>()?,
            wanted: parents.iter().any(|(_, state)| *state < 2),
            held: !parents.is_empty(),
        })
    }

    async fn manifest_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        _lock: bool,
    ) -> Result<Vec<ManifestFact>, Error> {
        let select = sqlx::query_as(include_str!("sql/manifest_facts.sql"))
            .bind(repository)
            .bind(digests_json(digests));
        let found: Vec<(i64, Vec<u8>, i64, Option<Uuid>)> = self.tx.all(select).await?;
        let facts = found.into_iter().map(|(id, digest, state, generation)| {
            Ok(ManifestFact {
                id,
                digest: digest_column("manifests", &digest)?,
                state: State::from_code(state).ok_or_else(|| unreadable("manifests", "state"))?,
                generation: generation.map(Generation::from_uuid),
            })
        });
        facts.collect()
    }

    async fn trash_manifests(&mut self, manifests: &[i64], retain: Duration) -> Result<(), Error> {
        for id in manifests {
            let update = sqlx::query(include_str!("sql/trash_manifest.sql")).bind(id).bind(micros(retain));
            self.tx.run(update).await?;
            let forget = "DELETE FROM tags WHERE manifest_id = ?1 AND trashed_until IS NULL";
            self.tx.run(sqlx::query(forget).bind(id)).await?;
            self.tx.candidate(Candidate::Trashed, *id, retain).await?;
        }
        Ok(())
    }

    async fn enliven(&mut self, manifests: &[(i64, Generation)]) -> Result<(), Error> {
        let update = "UPDATE manifests SET state = 1, gen = ?2, pending_until = NULL, \
                      touched = (SELECT now FROM clock) WHERE id = ?1 AND state = 0";
        for (id, generation) in manifests {
            self.tx.run(sqlx::query(update).bind(id).bind(generation.to_uuid())).await?;
        }
        Ok(())
    }

    async fn insert_manifests(
        &mut self,
        repository: RepositoryId,
        manifests: &[NewManifest<'_>],
    ) -> Result<Vec<Option<i64>>, Error> {
        let mut ids = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            ids.push(self.insert_manifest(repository, manifest).await?);
        }
        Ok(ids)
    }

    async fn insert_references(
        &mut self,
        repository: RepositoryId,
        manifests: &[(i64, &ManifestFacts)],
    ) -> Result<(), Error> {
        for (id, facts) in manifests {
            for (statement, digests) in [
                (include_str!("sql/hold_links.sql"), &facts.blobs),
                (include_str!("sql/hold_children.sql"), &facts.children),
            ] {
                if !digests.is_empty() {
                    let hold = sqlx::query(statement).bind(id).bind(repository).bind(digests_json(digests));
                    self.tx.run(hold).await?;
                }
            }
        }
        Ok(())
    }

    async fn lives(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, Life>, Error> {
        let mut lives = HashMap::new();
        for fact in self.manifest_facts(repository, digests, lock).await? {
            let slot = lives.entry(fact.digest).or_insert(Life::None);
            match fact.state {
                State::Live => *slot = Life::Live(fact.id),
                State::Trashed if !matches!(slot, Life::Live(_)) => *slot = Life::Trashed(fact.id),
                _ => {}
            }
        }
        Ok(lives)
    }

    async fn tag_facts(
        &mut self,
        repository: RepositoryId,
        tags: &[Tag],
        _lock: bool,
    ) -> Result<HashMap<Tag, TagFact>, Error> {
        let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        let select = sqlx::query_as(include_str!("sql/tag_facts.sql")).bind(repository).bind(to_json(&names));
        let found: Vec<TagColumns> = self.tx.all(select).await?;
        let facts = found.into_iter().map(|found| {
            let fact = found.into_row()?.fact();
            Ok((fact.tag.clone(), fact))
        });
        facts.collect()
    }

    async fn drop_tags(&mut self, repository: RepositoryId, tags: &[Tag]) -> Result<(), Error> {
        let delete = "DELETE FROM tags WHERE repo_id = ?1 AND name = ?2";
        for tag in tags {
            self.tx.run(sqlx::query(delete).bind(repository).bind(tag.as_str())).await?;
        }
        Ok(())
    }

    async fn insert_tags(
        &mut self,
        repository: RepositoryId,
        tags: &[(Tag, TagSet)],
        retain: Duration,
    ) -> Result<HashSet<Tag>, Error> {
        let mut inserted = HashSet::new();
        for (tag, set) in tags {
            let (own, hidden, manifest) = match *set {
                TagSet::Live { record, manifest } => (record, None, manifest),
                TagSet::Trashed { tombstone, hidden, manifest } => (tombstone, Some(hidden), manifest),
                TagSet::Gone => continue,
            };
            let insert = sqlx::query(include_str!("sql/adopt_tag.sql"))
                .bind(repository)
                .bind(tag.as_str())
                .bind(manifest)
                .bind(own.version.epoch)
                .bind(integer(own.version.seq))
                .bind(own.generation.to_uuid())
                // A deletion leaves the time of what it hides.
                .bind(integer(hidden.unwrap_or(own).generation.milliseconds() * 1000))
                .bind(hidden.map(|hidden| hidden.version.epoch))
                .bind(hidden.map(|hidden| integer(hidden.version.seq)))
                .bind(hidden.map(|hidden| hidden.generation.to_uuid()))
                .bind(micros(retain));
            if self.tx.run(insert).await? > 0 {
                inserted.insert(tag.clone());
            }
        }
        Ok(inserted)
    }

    async fn insert_promotions(&mut self, found: &[(LedgerClaim, LedgerRecord)]) -> Result<u64, Error> {
        for (claim, record) in found {
            self.tx.insert_promotion(claim.version, claim.generation, record).await?;
        }
        Ok(found.len() as u64)
    }

    async fn forget_promotions(&mut self, gone: &[LedgerClaim]) -> Result<u64, Error> {
        let mut forgotten = 0;
        for claim in gone {
            let forget =
                sqlx::query("DELETE FROM promotions WHERE gen = ?1").bind(claim.generation.to_uuid());
            forgotten += self.tx.run(forget).await?;
        }
        Ok(forgotten)
    }

    async fn queued(&mut self, steps: &[String]) -> Result<HashSet<String>, Error> {
        let select = sqlx::query_as(include_str!("sql/queued.sql")).bind(to_json(steps));
        let found: Vec<(String,)> = self.tx.all(select).await?;
        Ok(found.into_iter().map(|(step,)| step).collect())
    }

    async fn unqueue(&mut self, key: &Key) -> Result<(), Error> {
        let step = steps::remove(key);
        let unqueue = sqlx::query(include_str!("sql/unqueue.sql"));
        self.tx.run(unqueue.bind(step.as_str()).bind(steps::aborts(key))).await?;
        self.tx.run(sqlx::query("DELETE FROM outbox_steps WHERE step = ?1").bind(step)).await?;
        Ok(())
    }

    async fn announced(&mut self, epoch: Epoch, keys: &[String]) -> Result<HashSet<String>, Error> {
        // Those of pushes that are under way: few.
        let select = sqlx::query_as("SELECT keys FROM intents WHERE epoch = ?1").bind(epoch.0);
        let rows: Vec<(String,)> = self.tx.all(select).await?;
        let mut announced: HashSet<String> = HashSet::new();
        for (text,) in rows {
            announced.extend(from_json::<Vec<String>>("intents", &text)?);
        }
        announced.retain(|key| keys.contains(key));
        Ok(announced)
    }

    async fn uploading(&mut self, generations: &[Generation]) -> Result<HashSet<Generation>, Error> {
        let select = sqlx::query_as(include_str!("sql/uploading.sql")).bind(generations_json(generations));
        let found: Vec<(Uuid,)> = self.tx.all(select).await?;
        Ok(found.into_iter().map(|(generation,)| Generation::from_uuid(generation)).collect())
    }

    /// There is one writer: nobody else is at them.
    async fn hold_uploads(&mut self, generations: &[Generation]) -> Result<HashMap<Generation, bool>, Error> {
        Ok(self.uploading(generations).await?.into_iter().map(|generation| (generation, true)).collect())
    }

    async fn learn_plans(&mut self, plans: &[(Generation, Digest, Option<Location>)]) -> Result<(), Error> {
        for (generation, digest, location) in plans {
            let (form, tail) = plan_columns(location.map(|location| location.form));
            let update = sqlx::query(include_str!("sql/learn_plan.sql"))
                .bind(generation.to_uuid())
                .bind(digest.to_bytes())
                .bind(form)
                .bind(tail)
                .bind(location.map(|location| integer(location.size)));
            self.tx.run(update).await?;
        }
        Ok(())
    }

    async fn stored(&mut self, generations: &[Generation]) -> Result<HashMap<Generation, Form>, Error> {
        let select = sqlx::query_as(include_str!("sql/stored_of.sql")).bind(generations_json(generations));
        let found: Vec<(Uuid, i64, Option<u32>)> = self.tx.all(select).await?;
        let mut stored = HashMap::new();
        for (generation, code, tail) in found {
            if let Some(form) = form("blobs", code, tail)? {
                stored.insert(Generation::from_uuid(generation), form);
            }
        }
        Ok(stored)
    }

    async fn orphans(&mut self, objects: &[String], age: Duration) -> Result<HashSet<String>, Error> {
        let note = sqlx::query_as(include_str!("sql/note_orphans.sql"));
        let found: Vec<(String, bool)> = self.tx.all(note.bind(to_json(objects)).bind(micros(age))).await?;
        Ok(found.into_iter().filter_map(|(key, is_old)| is_old.then_some(key)).collect())
    }

    async fn renew_tag(
        &mut self,
        repository: RepositoryId,
        tag: &Tag,
        generation: Generation,
    ) -> Result<(), Error> {
        let update = "UPDATE tags SET gen = ?3 WHERE repo_id = ?1 AND name = ?2";
        let update = sqlx::query(update).bind(repository).bind(tag.as_str()).bind(generation.to_uuid());
        self.tx.run(update).await.map(drop)
    }

    async fn owe(&mut self, owed: Owed) -> Result<i64, Error> {
        let Owed { steps, lane, about, after } = owed;
        self.tx.owe(&Queued { steps, after, lane, about, ..Queued::default() }).await
    }

    async fn lose(&mut self, epoch: Epoch, kind: Kind, lost: u64) -> Result<Option<Loss>, Error> {
        let update = "UPDATE losses SET lost = lost + ?3 WHERE epoch = ?1 AND kind = ?2
                      RETURNING lost, total, accepted";
        let update = sqlx::query_as(update).bind(epoch.0).bind(kind.name()).bind(integer(lost));
        let found: Option<(i64, i64, bool)> = self.tx.one(update).await?;
        match found {
            Some((lost, total, false)) => Ok(Some(loss(kind, lost, total)?)),
            _ => Ok(None),
        }
    }
}

/// A loss as its columns have it.
pub(super) fn loss(kind: Kind, lost: i64, total: i64) -> Result<Loss, Error> {
    let number = |column: i64| u64::try_from(column).map_err(|error| unreadable("losses", error));
    Ok(Loss { kind, lost: number(lost)?, total: number(total)? })
}
