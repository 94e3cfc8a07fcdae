// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! From listed keys and claimed rows to what was found: each claimed object that the listing lacks is looked for.

use std::collections::{HashMap, HashSet};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use stowage_oci::{Digest, Manifest, Name, Tag};

use super::join::{Group, Seen};
use super::{Broken, Work};
use crate::key::{Form, Generation, Key};
use crate::meta::{
    BlobFound, Damage, Difference, LedgerClaim, LedgerFound, LedgerRecord, LinkFound, Location,
    ManifestClaim, ManifestFound, Outcome, Settled, TagEntry, TagFound,
};

/// Requests of one comparison at the same time.
const AT_ONCE: usize = 64;

/// A question under way.
pub(super) type Asked<'a, T> = BoxFuture<'a, Result<T, Broken>>;

/// All answers, in any order.
pub(super) async fn at_once<T>(asked: Vec<Asked<'_, T>>) -> Result<Vec<T>, Broken> {
    stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await
}

/// What a listing shows of a name.
#[derive(Clone, Debug)]
pub(super) struct Listed<N> {
    pub(super) name: N,
    pub(super) objects: Vec<Seen>,
}

/// What was found at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    There,
    /// It has another length than its key or its row says.
    Resized,
    Gone,
}

impl Work {
    /// Of claimed objects that were not listed: those that are there all the same, and those that are gone.
    async fn look_for(&self, claimed: Vec<Key>) -> Result<(HashSet<Key>, HashSet<Key>), Broken> {
        let look = |key: Key| -> Asked<'_, (Key, bool)> {
            Box::pin(async move {
                let there = self.look_at(&key, key.size()).await? == Sight::There;
                Ok((key, there))
            })
        };
        let looked = at_once(claimed.into_iter().map(look).collect()).await?;
        let (there, gone): (Vec<_>, Vec<_>) = looked.into_iter().partition(|(_, there)| *there);
        let keys = |all: Vec<(Key, bool)>| all.into_iter().map(|(key, _)| key).collect();
        Ok((keys(there), keys(gone)))
    }

    pub(super) async fn head(&self, key: &Key) -> Result<bool, Broken> {
        Ok(self.look_at(key, None).await? == Sight::There)
    }

    /// Whether an object is there, and as long as it should be if that is known.
    pub(super) async fn look_at(&self, key: &Key, size: Option<u64>) -> Result<Sight, Broken> {
        let _turn = self.pace.bucket().await;
        Ok(match self.comparer.store.head(&key.to_string()).await? {
            None => Sight::Gone,
            Some(found) if size.is_some_and(|size| size != found) => Sight::Resized,
            Some(_) => Sight::There,
        })
    }

    /// Data of blobs. `thorough`: also looks for the data behind pointers that rows agree with.
    pub(super) async fn find_blobs(
        &self,
        listed: Vec<Listed<Digest>>,
        claims: &[(Digest, Location)],
        thorough: bool,
    ) -> Result<Vec<BlobFound>, Broken> {
        let claimed: HashMap<Digest, Location> = claims.iter().copied().collect();
        let mut all: HashMap<Digest, Vec<Location>> = HashMap::new();
        let mut damaged: HashMap<Digest, Vec<(Location, Damage)>> = HashMap::new();
        for Listed { name, objects } in listed {
            let locations = all.entry(name).or_default();
            for object in objects {
                let Key::Blob { generation, size, form, .. } = object.key else { continue };
                let location = Location { generation, form, size };
                // A pointer is empty; what it points to is looked at below.
                if form == Form::Inline && object.size != size {
                    damaged.entry(name).or_default().push((location, Damage::Length));
                } else {
                    locations.push(location);
                }
            }
        }
        let unlisted = claimed.iter().filter(|(digest, location)| {
            all.get(*digest).is_none_or(|locations| !locations.contains(location))
        });
        let unlisted: Vec<Key> = unlisted.map(|(digest, location)| location.blob_key(*digest)).collect();
        let (there, mut gone) = self.look_for(unlisted).await?;
        for (digest, location) in claims {
            if there.contains(&location.blob_key(*digest)) {
                all.entry(*digest).or_default().push(*location);
            } else {
                all.entry(*digest).or_default();
            }
        }
        let pointers =
            all.iter().flat_map(|(digest, locations)| locations.iter().map(|location| (*digest, *location)));
        let pointers = pointers.filter(|(digest, location)| {
            let agreed = claimed.get(digest) == Some(location);
            location.form != Form::Inline && (thorough || !agreed)
        });
        let pointers: Vec<(Digest, Location)> = pointers.collect();
        let look = |(digest, location): (Digest, Location)| -> Asked<'_, (Digest, Location, Sight)> {
            Box::pin(async move {
                let sight = self.look_at(&location.data_key(digest), Some(location.size)).await?;
                Ok((digest, location, sight))
            })
        };
        let empty = at_once(pointers.into_iter().map(look).collect()).await?;
        for (digest, location, sight) in empty.into_iter().filter(|(_, _, sight)| *sight != Sight::There) {
            all.entry(digest).or_default().retain(|other| *other != location);
            gone.insert(location.blob_key(digest));
            let damage = if sight == Sight::Resized { Damage::Length } else { Damage::Missing };
            damaged.entry(digest).or_default().push((location, damage));
        }
        let found = all.into_iter().map(|(digest, listed)| {
            let own = claimed.get(&digest).filter(|location| gone.contains(&location.blob_key(digest)));
            let damaged = damaged.remove(&digest).unwrap_or_default();
            BlobFound { digest, listed, gone: own.into_iter().copied().collect(), damaged }
        });
        let mut found: Vec<BlobFound> = found.collect();
        found.sort_by_key(|found| found.digest);
        Ok(found)
    }

    /// Links of a repository.
    pub(super) async fn find_links(
        &self,
        repository: &Name,
        listed: Vec<Listed<Digest>>,
        claims: &[(Digest, Generation)],
        manifests_compared: bool,
    ) -> Result<Vec<LinkFound>, Broken> {
        let mut all: HashMap<Digest, Vec<Generation>> = HashMap::new();
        for Listed { name, objects } in listed {
            let generations = objects.into_iter().filter_map(|object| match object.key {
                Key::Link { generation, .. } => Some(generation),
                _ => None,
            });
            all.entry(name).or_default().extend(generations);
        }
        let key = |digest: Digest, generation: Generation| Key::Link {
            repository: repository.clone(),
            digest,
            generation,
        };
        let unlisted = claims
            .iter()
            .filter(|(digest, generation)| all.get(digest).is_none_or(|listed| !listed.contains(generation)));
        let unlisted: Vec<Key> = unlisted.map(|(digest, generation)| key(*digest, *generation)).collect();
        let (there, gone) = self.look_for(unlisted).await?;
        let mut missing: HashMap<Digest, Vec<Generation>> = HashMap::new();
        for (digest, generation) in claims {
            let own = key(*digest, *generation);
            let listed = all.entry(*digest).or_default();
            if there.contains(&own) {
                listed.push(*generation);
            } else if gone.contains(&own) {
                missing.entry(*digest).or_default().push(*generation);
            }
        }
        let found = all.into_iter().map(|(digest, listed)| LinkFound {
            gone: missing.remove(&digest).unwrap_or_default(),
            digest,
            listed,
            manifests_compared,
            lacks_data: false,
        });
        let mut found: Vec<LinkFound> = found.collect();
        found.sort_by_key(|found| found.digest);
        if self.scope.mode.verifies() {
            self.look_for_data(&mut found, claims).await?;
        }
        Ok(found)
    }

    /// Manifests of a repository, with what they are where no row knows a record.
    pub(super) async fn find_manifests(
        &self,
        repository: &Name,
        listed: Vec<Listed<Digest>>,
        claims: &[ManifestClaim],
    ) -> Result<Vec<ManifestFound>, Broken> {
        let mut all: HashMap<Digest, ManifestFound> = HashMap::new();
        let nothing = |digest| ManifestFound {
            digest,
            records: Vec::new(),
            markers: Vec::new(),
            gone: Vec::new(),
            damaged: Vec::new(),
            facts: None,
            owes_referrer: false,
        };
        let sizes: HashMap<Generation, u64> = if self.scope.mode.verifies() {
            let live = claims.iter().filter(|claim| claim.live);
            live.filter_map(|claim| Some((claim.generation?, claim.size.into()))).collect()
        } else {
            // What has another length than its row is still what clients are given from the row.
            HashMap::new()
        };
        for Listed { name, objects } in listed {
            let found = all.entry(name).or_insert_with(|| nothing(name));
            for object in objects {
                match object.key {
                    Key::Manifest { generation, .. }
                        if sizes.get(&generation).is_some_and(|size| *size != object.size) =>
                    {
                        found.gone.push(generation);
                        found.damaged.push((generation, Damage::Length));
                    }
                    Key::Manifest { generation, .. } => found.records.push(generation),
                    Key::ManifestDeleted { generation, .. } => found.markers.push(generation),
                    _ => {}
                }
            }
        }
        let key = |digest: Digest, generation: Generation| Key::Manifest {
            repository: repository.clone(),
            digest,
            generation,
        };
        let live = claims.iter().filter(|claim| claim.live);
        let live: Vec<(Digest, Generation)> =
            live.filter_map(|claim| Some((claim.digest, claim.generation?))).collect();
        let unlisted = live.iter().filter(|(digest, generation)| {
            let is_known =
                |found: &ManifestFound| found.records.contains(generation) || found.gone.contains(generation);
            all.get(digest).is_none_or(|found| !is_known(found))
        });
        let unlisted: Vec<Key> = unlisted.map(|(digest, generation)| key(*digest, *generation)).collect();
        let (there, gone) = self.look_for(unlisted).await?;
        for (digest, generation) in &live {
            let found = all.entry(*digest).or_insert_with(|| nothing(*digest));
            if there.contains(&key(*digest, *generation)) {
                found.records.push(*generation);
            } else if gone.contains(&key(*digest, *generation)) {
                found.gone.push(*generation);
            }
        }
        let known: HashSet<(Digest, Generation)> =
            claims.iter().filter_map(|claim| Some((claim.digest, claim.generation?))).collect();
        let known = &known;
        let read = |mut found: ManifestFound| -> Asked<'_, ManifestFound> {
            Box::pin(async move {
                let digest = found.digest;
                let unknown = |generation: &&Generation| !known.contains(&(digest, **generation));
                // A pending row needs it for a second record, too.
                if let Some(unknown) = found.records.iter().find(unknown).copied() {
                    self.read_facts(repository, &mut found, unknown).await?;
                }
                Ok(found)
            })
        };
        let mut found = at_once(all.into_values().map(read).collect()).await?;
        found.sort_by_key(|found| found.digest);
        Ok(found)
    }

    /// Reads what a manifest is. A record that cannot be read is left alone and reported: unknown means keep.
    async fn read_facts(
        &self,
        repository: &Name,
        found: &mut ManifestFound,
        generation: Generation,
    ) -> Result<(), Broken> {
        let digest = found.digest;
        let key = Key::Manifest { repository: repository.clone(), digest, generation };
        let body = {
            let _turn = self.pace.bucket().await;
            self.comparer.read_whole(&key).await?
        };
        let Some(body) = body else { return Ok(()) };
        let parsed = if Digest::of(digest.algorithm(), &body) == digest {
            Manifest::parse(&body, None).map_err(|error| error.to_string())
        } else {
            Err("the content has another digest".to_owned())
        };
        match parsed {
            Ok(manifest) => found.facts = Some(super::super::push::facts(digest, manifest, &body)),
            Err(error) => {
                tracing::warn!(object.key = %key, error, "a manifest record cannot be read; it is left alone");
                self.tally.foreign();
                found.records.retain(|other| *other != generation);
                found.damaged.push((generation, Damage::Content));
            }
        }
        Ok(())
    }

    /// Tags of a repository.
    pub(super) async fn find_tags(
        &self,
        repository: &Name,
        listed: Vec<Listed<Tag>>,
        claims: &[(Tag, TagEntry)],
    ) -> Result<Vec<TagFound>, Broken> {
        let nothing =
            |tag: Tag| TagFound { tag, records: Vec::new(), withdrawn: Vec::new(), gone: Vec::new() };
        let mut all: HashMap<Tag, TagFound> = HashMap::new();
        for Listed { name, objects } in listed {
            let found = all.entry(name.clone()).or_insert_with(|| nothing(name));
            for object in objects {
                match object.key {
                    Key::Tag { version, generation, target, .. } => {
                        found.records.push(TagEntry { version, generation, target });
                    }
                    Key::TagWithdrawn { version, generation, target, .. } => {
                        found.withdrawn.push(TagEntry { version, generation, target });
                    }
                    _ => {}
                }
            }
        }
        let key = |tag: &Tag, entry: &TagEntry| Key::Tag {
            repository: repository.clone(),
            tag: tag.clone(),
            version: entry.version,
            generation: entry.generation,
            target: entry.target,
        };
        let unlisted = claims
            .iter()
            .filter(|(tag, entry)| all.get(tag).is_none_or(|found| !found.records.contains(entry)));
        let unlisted: Vec<Key> = unlisted.map(|(tag, entry)| key(tag, entry)).collect();
        let (there, gone) = self.look_for(unlisted).await?;
        for (tag, entry) in claims {
            let found = all.entry(tag.clone()).or_insert_with(|| nothing(tag.clone()));
            if there.contains(&key(tag, entry)) {
                found.records.push(*entry);
            } else if gone.contains(&key(tag, entry)) {
                found.gone.push(*entry);
            }
        }
        let mut found: Vec<TagFound> = all.into_values().collect();
        found.sort_by(|a, b| a.tag.cmp(&b.tag));
        Ok(found)
    }

    /// Promotions into a repository, with what their records say where no row knows them.
    pub(super) async fn find_ledger(
        &self,
        repository: &Name,
        groups: Vec<Group>,
        claims: &[LedgerClaim],
    ) -> Result<LedgerFound, Broken> {
        let claim = |key: &Key| match key {
            Key::Ledger { digest, version, generation, .. } => {
                Some(LedgerClaim { digest: *digest, version: *version, generation: *generation })
            }
            _ => None,
        };
        let objects = groups.into_iter().flat_map(|group| group.objects);
        let listed: Vec<LedgerClaim> = objects.filter_map(|object| claim(&object.key)).collect();
        let key = |claim: &LedgerClaim| {
            let LedgerClaim { digest, version, generation } = *claim;
            Key::Ledger { repository: repository.clone(), digest, version, generation }
        };
        let unlisted = claims.iter().filter(|claim| !listed.contains(claim)).map(key).collect();
        let (_, gone) = self.look_for(unlisted).await?;
        let mut found =
            LedgerFound { gone: gone.iter().filter_map(claim).collect(), ..LedgerFound::default() };
        for claim in listed.into_iter().filter(|claim| !claims.contains(claim)) {
            if let Some(record) = self.read_ledger(&key(&claim)).await? {
                found.unknown.push((claim, record));
            }
        }
        Ok(found)
    }

    /// What a promotion was decided by. A record that cannot be read is left alone and reported.
    async fn read_ledger(&self, key: &Key) -> Result<Option<LedgerRecord>, Broken> {
        let body = {
            let _turn = self.pace.bucket().await;
            self.comparer.read_whole(key).await?
        };
        let Some(body) = body else { return Ok(None) };
        match serde_json::from_slice(&body) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(object.key = %key, %error, "a promotion's record cannot be read; it is left alone");
                self.tally.foreign();
                Ok(None)
            }
        }
    }

    /// Settles a difference, and does what follows from it at once.
    pub(super) async fn settle(&self, difference: Difference<'_>) -> Result<Settled, Broken> {
        let outcome = {
            let _turn = self.pace.database().await;
            self.comparer.meta.settle(&self.scope, &difference).await?
        };
        match outcome {
            Outcome::Settled(mut settled) => {
                if self.scope.mode.verifies() {
                    self.confirm(&mut settled).await?;
                }
                self.run_errands(&settled.errands).await?;
                self.tally.add(&settled.changes);
                if self.scope.mode.verifies() {
                    self.follow_up(&difference, &settled).await?;
                }
                Ok(settled)
            }
            Outcome::Walked => Err(Broken::Walked),
            Outcome::TooManyLosses(loss) => Err(Broken::TooManyLosses(loss)),
        }
    }
}
