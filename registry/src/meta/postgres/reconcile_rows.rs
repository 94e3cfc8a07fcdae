// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Statements of a comparison, over lists of names: one round trip each.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stowage_oci::{Digest, Name, Tag};
use uuid::Uuid;

use super::error::Fault;
use super::ledger::insert_promotion;
use super::queue::{Removals, candidates};
use super::receive::{ensure_repository, repository};
use super::tx::Connection;
use super::{PostgresStore, row, seconds};
use crate::key::{Form, Generation, Key, Version};
use crate::meta::reconcile::{
    BlobFact, Holders, Kind, LedgerClaim, Life, LinkFact, Loss, ManifestFact, NewManifest, Owed, Rows, State,
    TagFact, TagSet,
};
use crate::meta::{Candidate, Epoch, Error, LedgerRecord, Location, ManifestFacts, RepositoryId, steps};

/// The rows, within a transaction.
pub(super) struct PgRows<'a> {
    pub(super) tx: &'a mut Connection,
    pub(super) store: &'a PostgresStore,
}

#[derive(sqlx::FromRow)]
pub(super) struct LocationColumns {
    pub(super) generation: Option<Uuid>,
    pub(super) form: i16,
    pub(super) tail: Option<i32>,
    pub(super) size: i64,
}

impl LocationColumns {
    /// `None`: absent.
    pub(super) fn read(&self) -> Result<Option<Location>, Error> {
        if self.form == 0 {
            return Ok(None);
        }
        row::location(self.generation, self.form, self.tail, self.size).map(Some)
    }
}

#[derive(sqlx::FromRow)]
struct BlobColumns {
    id: i64,
    digest: Vec<u8>,
    #[sqlx(flatten)]
    location: LocationColumns,
}

#[derive(sqlx::FromRow)]
struct LinkColumns {
    id: i64,
    digest: Vec<u8>,
    generation: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct ManifestColumns {
    id: i64,
    digest: Vec<u8>,
    state: i16,
    generation: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
pub(super) struct TagColumns {
    name: String,
    digest: Vec<u8>,
    epoch: i64,
    seq: i64,
    generation: Uuid,
    prev_epoch: Option<i64>,
    prev_seq: Option<i64>,
    prev_generation: Option<Uuid>,
}

fn version(epoch: i64, seq: i64) -> Result<Version, Error> {
    Ok(Version { epoch: row::number("tags", epoch)?, seq: row::number("tags", seq)? })
}

impl TagColumns {
    pub(super) fn read(self) -> Result<TagFact, Error> {
        let hidden = match (self.prev_epoch, self.prev_seq, self.prev_generation) {
            (Some(epoch), Some(seq), Some(generation)) => {
                Some((version(epoch, seq)?, Generation::from_uuid(generation)))
            }
            _ => None,
        };
        Ok(TagFact {
            tag: row::parsed("tags", &self.name)?,
            target: row::digest("tags", &self.digest)?,
            version: version(self.epoch, self.seq)?,
            generation: Generation::from_uuid(self.generation),
            hidden,
        })
    }
}

/// Locations as columns of lists.
#[derive(Default)]
struct Locations {
    sizes: Vec<i64>,
    generations: Vec<Option<Uuid>>,
    forms: Vec<i16>,
    tails: Vec<Option<i32>>,
}

impl Locations {
    fn push(&mut self, location: Option<Location>) -> Result<(), Error> {
        let (form, tail) = location.map_or(Ok((0, None)), |location| row::form_columns(location.form))?;
        self.sizes.push(location.map_or(Ok(0), |location| row::stored(location.size))?);
        self.generations.push(location.map(|location| location.generation.to_uuid()));
        self.forms.push(form);
        self.tails.push(tail);
        Ok(())
    }
}

fn uuids(generations: &[Generation]) -> Vec<Uuid> {
    generations.iter().map(|generation| generation.to_uuid()).collect()
}

fn all_digests(table: &'static str, found: &[Vec<u8>]) -> Result<HashSet<Digest>, Fault> {
    Ok(found.iter().map(|bytes| row::digest(table, bytes)).collect::<Result<_, _>>()?)
}

fn life(state: i16, id: i64) -> Life {
    if state == 1 { Life::Live(id) } else { Life::Trashed(id) }
}

impl Rows for PgRows<'_> {
    type Fault = Fault;

    async fn blob_facts(
        &mut self,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, BlobFact>, Fault> {
        let statement =
            if lock { include_str!("sql/lock_blob_facts.sql") } else { include_str!("sql/blob_facts.sql") };
        let found: Vec<BlobColumns> =
            sqlx::query_as(statement).bind(row::digests(digests)).fetch_all(&mut *self.tx).await?;
        let facts = found.into_iter().map(|found| {
            let fact = BlobFact { id: found.id, location: found.location.read()? };
            Ok((row::digest("blobs", &found.digest)?, fact))
        });
        Ok(facts.collect::<Result<_, Error>>()?)
    }

    async fn insert_blobs(&mut self, blobs: &[(Digest, Option<Location>)]) -> Result<HashSet<Digest>, Fault> {
        let mut columns = Locations::default();
        for (_, location) in blobs {
            columns.push(*location)?;
        }
        let digests: Vec<Vec<u8>> = blobs.iter().map(|(digest, _)| digest.to_bytes()).collect();
        let inserted: Vec<Vec<u8>> = sqlx::query_scalar(include_str!("sql/insert_blobs.sql"))
            .bind(digests)
            .bind(columns.sizes)
            .bind(columns.generations)
            .bind(columns.forms)
            .bind(columns.tails)
            .fetch_all(&mut *self.tx)
            .await?;
        all_digests("blobs", &inserted)
    }

    async fn set_blobs(&mut self, blobs: &[(i64, Option<Location>)]) -> Result<(), Fault> {
        let (mut ids, mut columns, mut absent) = (Vec::new(), Locations::default(), Vec::new());
        for (id, location) in blobs {
            if location.is_some() {
                ids.push(*id);
                columns.push(*location)?;
            } else {
                absent.push(*id);
            }
        }
        if !ids.is_empty() {
            sqlx::query(include_str!("sql/move_blobs.sql"))
                .bind(ids)
                .bind(columns.sizes)
                .bind(columns.generations)
                .bind(columns.forms)
                .bind(columns.tails)
                .execute(&mut *self.tx)
                .await?;
        }
        if !absent.is_empty() {
            sqlx::query("UPDATE blobs SET form = 0 WHERE id = ANY ($1)")
                .bind(absent)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    async fn repository_row(&mut self, name: &Name, create: bool) -> Result<Option<RepositoryId>, Fault> {
        if create {
            return Ok(Some(ensure_repository(self.tx, name).await?));
        }
        Ok(repository(self.tx, name).await?)
    }

    async fn link_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, LinkFact>, Fault> {
        let statement =
            if lock { include_str!("sql/lock_link_facts.sql") } else { include_str!("sql/link_facts.sql") };
        let found: Vec<LinkColumns> = sqlx::query_as(statement)
            .bind(repository)
            .bind(row::digests(digests))
            .fetch_all(&mut *self.tx)
            .await?;
        let facts = found.into_iter().map(|found| {
            let fact = LinkFact { id: found.id, generation: found.generation.map(Generation::from_uuid) };
            Ok((row::digest("repo_blobs", &found.digest)?, fact))
        });
        Ok(facts.collect::<Result<_, Error>>()?)
    }

    async fn insert_links(
        &mut self,
        repository: RepositoryId,
        links: &[(Digest, Option<Generation>)],
    ) -> Result<HashSet<Digest>, Fault> {
        let (digests, generations): (Vec<Vec<u8>>, Vec<Option<Uuid>>) = links
            .iter()
            .map(|(digest, generation)| (digest.to_bytes(), generation.map(Generation::to_uuid)))
            .unzip();
        let inserted: Vec<Vec<u8>> = sqlx::query_scalar(include_str!("sql/insert_links.sql"))
            .bind(repository)
            .bind(digests)
            .bind(generations)
            .fetch_all(&mut *self.tx)
            .await?;
        all_digests("repo_blobs", &inserted)
    }

    async fn set_links(&mut self, links: &[(i64, Option<Generation>)]) -> Result<(), Fault> {
        let (ids, generations): (Vec<i64>, Vec<Option<Uuid>>) =
            links.iter().map(|(id, generation)| (*id, generation.map(Generation::to_uuid))).unzip();
        sqlx::query(include_str!("sql/set_links.sql"))
            .bind(ids)
            .bind(generations)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn delete_link(&mut self, link: i64) -> Result<(), Fault> {
        let blob: Option<i64> = sqlx::query_scalar("DELETE FROM repo_blobs WHERE id = $1 RETURNING blob_id")
            .bind(link)
            .fetch_optional(&mut *self.tx)
            .await?;
        if let Some(blob) = blob {
            candidates(self.tx, Candidate::Blob, &[blob], self.store.timings.blob_grace).await?;
        }
        Ok(())
    }

    async fn holders(
        &mut self,
        repository: RepositoryId,
        link: i64,
        digest: Digest,
    ) -> Result<Holders, Fault> {
        let (live, wanted, held): (Vec<Vec<u8>>, bool, bool) =
            sqlx::query_as(include_str!("sql/link_holders.sql"))
                .bind(link)
                .bind(repository)
                .bind(digest.to_bytes())
                .fetch_one(&mut *self.tx)
                .await?;
        let live = live.iter().map(|bytes| row::digest("manifests", bytes)).collect::<Result<_, _>>()?;
        Ok(Holders { live, wanted, held })
    }

    async fn manifest_facts(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<Vec<ManifestFact>, Fault> {
        let statement = if lock {
            include_str!("sql/lock_manifest_facts.sql")
        } else {
            include_str!("sql/manifest_facts.sql")
        };
        let found: Vec<ManifestColumns> = sqlx::query_as(statement)
            .bind(repository)
            .bind(row::digests(digests))
            .fetch_all(&mut *self.tx)
            .await?;
        let facts = found.into_iter().map(|found| {
            let state = State::from_code(i64::from(found.state));
            Ok(ManifestFact {
                id: found.id,
                digest: row::digest("manifests", &found.digest)?,
                state: state.ok_or_else(|| row::unreadable("manifests", "state"))?,
                generation: found.generation.map(Generation::from_uuid),
            })
        });
        Ok(facts.collect::<Result<_, Error>>()?)
    }

    async fn trash_manifests(&mut self, manifests: &[i64], retain: Duration) -> Result<(), Fault> {
        sqlx::query(include_str!("sql/trash_manifests.sql"))
            .bind(manifests)
            .bind(seconds(retain))
            .execute(&mut *self.tx)
            .await?;
        sqlx::query("DELETE FROM tags WHERE manifest_id = ANY ($1) AND trashed_until IS NULL")
            .bind(manifests)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn enliven(&mut self, manifests: &[(i64, Generation)]) -> Result<(), Fault> {
        let (ids, generations): (Vec<i64>, Vec<Uuid>) =
            manifests.iter().map(|(id, generation)| (*id, generation.to_uuid())).unzip();
        sqlx::query(include_str!("sql/enliven_all.sql"))
            .bind(ids)
            .bind(generations)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn insert_manifests(
        &mut self,
        repository: RepositoryId,
        manifests: &[NewManifest<'_>],
    ) -> Result<Vec<Option<i64>>, Fault> {
        let facts = || manifests.iter().map(|manifest| manifest.facts);
        let sizes = facts().map(|facts| row::stored_small(facts.size)).collect::<Result<Vec<_>, _>>()?;
        let pushed = manifests.iter().map(|manifest| row::stored(manifest.generation.milliseconds()));
        let annotations: Vec<Option<String>> = facts()
            .map(|facts| facts.annotations.as_ref().map(serde_json::to_string).transpose())
            .collect::<Result<_, _>>()
            .map_err(|source| Error::Broken(sqlx::Error::Encode(source.into())))?;
        let generations = manifests.iter().map(|manifest| manifest.generation.to_uuid()).collect::<Vec<_>>();
        let inserted: Vec<(i64, Uuid)> = sqlx::query_as(include_str!("sql/insert_manifests.sql"))
            .bind(repository)
            .bind(facts().map(|facts| facts.digest.to_bytes()).collect::<Vec<_>>())
            .bind(&generations)
            .bind(manifests.iter().map(|manifest| manifest.trashed.map(seconds)).collect::<Vec<_>>())
            .bind(pushed.collect::<Result<Vec<_>, _>>()?)
            .bind(facts().map(|facts| facts.media_type.clone()).collect::<Vec<_>>())
            .bind(facts().map(|facts| facts.artifact_type.clone()).collect::<Vec<_>>())
            .bind(facts().map(|facts| facts.subject.map(|subject| subject.to_bytes())).collect::<Vec<_>>())
            .bind(annotations)
            .bind(sizes)
            .bind(facts().map(|facts| facts.body.as_ref().map(|body| body.to_vec())).collect::<Vec<_>>())
            .fetch_all(&mut *self.tx)
            .await?;
        let ids: HashMap<Uuid, i64> = inserted.into_iter().map(|(id, generation)| (generation, id)).collect();
        let buried = manifests.iter().zip(&generations).filter_map(|(manifest, generation)| {
            manifest.trashed.and_then(|retain| Some((*ids.get(generation)?, retain)))
        });
        let buried: Vec<(i64, Duration)> = buried.collect();
        if let Some((_, retain)) = buried.first() {
            let rows: Vec<i64> = buried.iter().map(|(id, _)| *id).collect();
            candidates(self.tx, Candidate::Trashed, &rows, *retain).await?;
        }
        Ok(generations.iter().map(|generation| ids.get(generation).copied()).collect())
    }

    async fn insert_references(
        &mut self,
        repository: RepositoryId,
        manifests: &[(i64, &ManifestFacts)],
    ) -> Result<(), Fault> {
        let pairs = |of: fn(&ManifestFacts) -> &[Digest]| -> (Vec<i64>, Vec<Vec<u8>>) {
            let all = manifests.iter();
            all.flat_map(|(id, facts)| of(facts).iter().map(|digest| (*id, digest.to_bytes()))).unzip()
        };
        let (holders, blobs) = pairs(|facts| &facts.blobs);
        let (parents, children) = pairs(|facts| &facts.children);
        if holders.is_empty() && parents.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("sql/insert_all_references.sql"))
            .bind(repository)
            .bind(holders)
            .bind(blobs)
            .bind(parents)
            .bind(children)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn lives(
        &mut self,
        repository: RepositoryId,
        digests: &[Digest],
        lock: bool,
    ) -> Result<HashMap<Digest, Life>, Fault> {
        let statement = if lock { include_str!("sql/lock_lives.sql") } else { include_str!("sql/lives.sql") };
        let found: Vec<(i64, Vec<u8>, i16)> = sqlx::query_as(statement)
            .bind(repository)
            .bind(row::digests(digests))
            .fetch_all(&mut *self.tx)
            .await?;
        let mut lives = HashMap::new();
        for (id, digest, state) in found {
            let slot = lives.entry(row::digest("manifests", &digest)?).or_insert(Life::None);
            if !matches!(slot, Life::Live(_)) {
                *slot = life(state, id);
            }
        }
        Ok(lives)
    }

    async fn tag_facts(
        &mut self,
        repository: RepositoryId,
        tags: &[Tag],
        lock: bool,
    ) -> Result<HashMap<Tag, TagFact>, Fault> {
        let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        if lock {
            let statement = sqlx::query(include_str!("sql/lock_tags.sql"));
            statement.bind(repository).bind(&names).execute(&mut *self.tx).await?;
        }
        let found: Vec<TagColumns> = sqlx::query_as(include_str!("sql/tag_facts.sql"))
            .bind(repository)
            .bind(&names)
            .fetch_all(&mut *self.tx)
            .await?;
        let facts = found.into_iter().map(|found| {
            let fact = found.read()?;
            Ok((fact.tag.clone(), fact))
        });
        Ok(facts.collect::<Result<_, Error>>()?)
    }

    async fn drop_tags(&mut self, repository: RepositoryId, tags: &[Tag]) -> Result<(), Fault> {
        let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        sqlx::query("DELETE FROM tags WHERE repo_id = $1 AND name = ANY ($2)")
            .bind(repository)
            .bind(names)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn insert_tags(
        &mut self,
        repository: RepositoryId,
        tags: &[(Tag, TagSet)],
        retain: Duration,
    ) -> Result<HashSet<Tag>, Fault> {
        let mut columns = TagLists::default();
        for (tag, set) in tags {
            columns.push(tag, set)?;
        }
        let inserted: Vec<String> = sqlx::query_scalar(include_str!("sql/insert_tags.sql"))
            .bind(repository)
            .bind(columns.names)
            .bind(columns.manifests)
            .bind(columns.epochs)
            .bind(columns.seqs)
            .bind(columns.generations)
            .bind(columns.pushed)
            .bind(columns.prev_epochs)
            .bind(columns.prev_seqs)
            .bind(columns.prev_generations)
            .bind(seconds(retain))
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(inserted.iter().map(|name| row::parsed("tags", name)).collect::<Result<_, _>>()?)
    }

    async fn insert_promotions(&mut self, found: &[(LedgerClaim, LedgerRecord)]) -> Result<u64, Fault> {
        for (claim, record) in found {
            insert_promotion(self.tx, claim.version, claim.generation, record).await?;
        }
        Ok(found.len() as u64)
    }

    async fn forget_promotions(&mut self, gone: &[LedgerClaim]) -> Result<u64, Fault> {
        if gone.is_empty() {
            return Ok(0);
        }
        let generations: Vec<Uuid> = gone.iter().map(|claim| claim.generation.to_uuid()).collect();
        let forget = sqlx::query("DELETE FROM promotions WHERE gen = ANY ($1)").bind(generations);
        Ok(forget.execute(&mut *self.tx).await?.rows_affected())
    }

    async fn queued(&mut self, steps: &[String]) -> Result<HashSet<String>, Fault> {
        let found: Vec<String> =
            sqlx::query_scalar(include_str!("sql/queued.sql")).bind(steps).fetch_all(&mut *self.tx).await?;
        Ok(found.into_iter().collect())
    }

    async fn unqueue(&mut self, key: &Key) -> Result<(), Fault> {
        sqlx::query(include_str!("sql/unqueue.sql"))
            .bind(steps::remove(key))
            .bind(steps::aborts(key))
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn announced(&mut self, epoch: Epoch, keys: &[String]) -> Result<HashSet<String>, Fault> {
        let found: Vec<String> = sqlx::query_scalar(include_str!("sql/announced.sql"))
            .bind(i64::from(epoch.0))
            .bind(keys)
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(found.into_iter().collect())
    }

    async fn uploading(&mut self, generations: &[Generation]) -> Result<HashSet<Generation>, Fault> {
        let found: Vec<Uuid> = sqlx::query_scalar("SELECT gen FROM uploads WHERE gen = ANY ($1)")
            .bind(uuids(generations))
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(found.into_iter().map(Generation::from_uuid).collect())
    }

    async fn hold_uploads(&mut self, generations: &[Generation]) -> Result<HashMap<Generation, bool>, Fault> {
        let found: Vec<(Uuid, bool)> = sqlx::query_as(include_str!("sql/hold_uploads.sql"))
            .bind(uuids(generations))
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(found.into_iter().map(|(generation, held)| (Generation::from_uuid(generation), held)).collect())
    }

    async fn learn_plans(&mut self, plans: &[(Generation, Digest, Option<Location>)]) -> Result<(), Fault> {
        for (generation, digest, location) in plans {
            let (form, tail) = row::plan_columns(location.map(|location| location.form))?;
            sqlx::query(include_str!("sql/learn_plan.sql"))
                .bind(generation.to_uuid())
                .bind(digest.to_bytes())
                .bind(form)
                .bind(tail)
                .bind(location.map(|location| row::stored(location.size)).transpose()?)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    async fn stored(&mut self, generations: &[Generation]) -> Result<HashMap<Generation, Form>, Fault> {
        let found: Vec<(Uuid, i16, Option<i32>)> = sqlx::query_as(include_str!("sql/stored_of.sql"))
            .bind(uuids(generations))
            .fetch_all(&mut *self.tx)
            .await?;
        let mut stored = HashMap::new();
        for (generation, form, tail) in found {
            if let Some(form) = row::form("blobs", form, tail)? {
                stored.insert(Generation::from_uuid(generation), form);
            }
        }
        Ok(stored)
    }

    async fn orphans(&mut self, objects: &[String], age: Duration) -> Result<HashSet<String>, Fault> {
        let found: Vec<(String, bool)> = sqlx::query_as(include_str!("sql/note_orphans.sql"))
            .bind(objects)
            .bind(seconds(age))
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(found.into_iter().filter_map(|(key, is_old)| is_old.then_some(key)).collect())
    }

    async fn renew_tag(
        &mut self,
        repository: RepositoryId,
        tag: &Tag,
        generation: Generation,
    ) -> Result<(), Fault> {
        sqlx::query("UPDATE tags SET gen = $3 WHERE repo_id = $1 AND name = $2")
            .bind(repository)
            .bind(tag.as_str())
            .bind(generation.to_uuid())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn owe(&mut self, owed: Owed) -> Result<i64, Fault> {
        let Owed { steps, lane, about, after } = owed;
        let removals = Removals { steps, lane, then_ref: about, ..Removals::default() };
        Ok(removals.queue(self.tx, after).await?)
    }

    async fn lose(&mut self, epoch: Epoch, kind: Kind, lost: u64) -> Result<Option<Loss>, Fault> {
        let found: Option<(i64, i64, bool)> = sqlx::query_as(include_str!("sql/lose.sql"))
            .bind(i64::from(epoch.0))
            .bind(kind.name())
            .bind(row::stored(lost)?)
            .fetch_optional(&mut *self.tx)
            .await?;
        match found {
            Some((lost, total, false)) => Ok(Some(Loss {
                kind,
                lost: row::number("losses", lost)?,
                total: row::number("losses", total)?,
            })),
            _ => Ok(None),
        }
    }
}

/// Rows of tags as columns of lists.
#[derive(Default)]
struct TagLists {
    names: Vec<String>,
    manifests: Vec<i64>,
    epochs: Vec<i64>,
    seqs: Vec<i64>,
    generations: Vec<Uuid>,
    pushed: Vec<i64>,
    prev_epochs: Vec<Option<i64>>,
    prev_seqs: Vec<Option<i64>>,
    prev_generations: Vec<Option<Uuid>>,
}

impl TagLists {
    fn push(&mut self, tag: &Tag, set: &TagSet) -> Result<(), Error> {
        let (own, hidden, manifest) = match *set {
            TagSet::Live { record, manifest } => (record, None, manifest),
            TagSet::Trashed { tombstone, hidden, manifest } => (tombstone, Some(hidden), manifest),
            TagSet::Gone => return Ok(()),
        };
        self.names.push(tag.to_string());
        self.manifests.push(manifest);
        self.epochs.push(i64::from(own.version.epoch));
        self.seqs.push(row::stored(own.version.seq)?);
        self.generations.push(own.generation.to_uuid());
        // A deletion leaves the time of what it hides.
        self.pushed.push(row::stored(hidden.unwrap_or(own).generation.milliseconds())?);
        self.prev_epochs.push(hidden.map(|hidden| i64::from(hidden.version.epoch)));
        self.prev_seqs.push(hidden.map(|hidden| row::stored(hidden.version.seq)).transpose()?);
        self.prev_generations.push(hidden.map(|hidden| hidden.generation.to_uuid()));
        Ok(())
    }
}
