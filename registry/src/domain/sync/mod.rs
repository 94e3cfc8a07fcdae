// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Copies repositories of another registry, as a mirror that replicates says.
//!
//! List → choose ([`plan`]) → compare digests → copy ([`copy`]): children before their index, then what refers to it,
//! then the tag; at the end, prune. Content goes the way of any push, so nothing is seen before its digest is right.
//! Guarantees: what is here is not fetched again, so a run that was killed is gone on with by the next. What fails is
//! told by its name, and the rest goes on. A tag that is not what it was when it was looked at is not written over.
//! An image is copied only if it is signed as the mirror asks.
//! Only tags that this mirror set are pruned, and only after a run without a failure over complete lists, none of which
//! is empty where it had something.
//! Never: assumes that it runs alone; two runs do the same twice.

mod ask;
mod copy;
mod list;
mod plan;
mod prune;
mod signed;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, stream};
use stowage_oci::{Digest, Glob, Name, Platform, Tag};
use tokio::sync::Semaphore;

use super::mirror::names::is_at_or_below;
use super::rate_limit::RateLimit;
use super::reconcile::{Pace, Unit};
use super::{Domain, Error};
use crate::key::Mark;
use crate::meta::TagState;
use crate::signatures::Keys;
use crate::upstream::{Settings, Upstream};

pub use plan::Selection;
pub use told::{SyncFate, SyncItem, Synced};

use ask::Patience;
use copy::Image;
use plan::{Here, Verdict, Wanted};
use told::{Fault, Tally};

/// Tags that are read at once.
const PAGE: u32 = 1000;
/// How often a tag is looked at that moves while it is copied, here or at the upstream.
const LOOKS: u32 = 3;

/// A mirror that replicates, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// What the mirror is called.
    pub name: String,
    /// What the names of its repositories begin with here; `None`: they are those of the upstream.
    pub path: Option<Name>,
    /// The registry that is copied.
    pub upstream: Settings,
    /// What of it.
    pub artifacts: Vec<Artifacts>,
    /// Whether tags go that the upstream has no longer.
    pub prunes: bool,
    /// Whether what refers to an image is copied with it.
    pub with_referrers: bool,
    /// Images at the same time.
    pub parallelism: usize,
    /// Bytes of blobs a second.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Paths that are others': nothing is copied there.
    pub taken: Vec<Name>,
    /// Whose signatures an image must have; `None`: nobody's.
    pub keys: Option<Keys>,
}

/// Repositories, and what of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// Which repositories.
    pub repositories: Repositories,
    /// Which tags of them.
    pub selection: Selection,
}

/// Which repositories of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repositories {
    /// This one.
    One(Name),
    /// Those of its catalogue that one of `include` fits and none of `exclude`.
    Catalog {
        /// Which.
        include: Vec<Glob>,
        /// Which not.
        exclude: Vec<Glob>,
    },
    /// Those of an organization of Quay that none of `exclude` fits.
    Organization {
        /// Its name.
        name: String,
        /// Which not.
        exclude: Vec<Glob>,
    },
}

/// Whether a run acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// It does.
    Copy,
    /// It lists, compares, and tells what it would do.
    DryRun,
}

/// How far a run is, in tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// So many were looked at.
    pub done: u64,
    /// Of so many that are known of.
    pub known: u64,
}

/// Is told of each item, and how far the run is then.
pub trait Tell: Fn(&SyncItem, SyncProgress) + Send + Sync {}

impl<F: Fn(&SyncItem, SyncProgress) + Send + Sync> Tell for F {}

impl Domain {
    /// One run of a mirror that replicates.
    pub async fn replicate(&self, asked: &Replication, mode: SyncMode, tell: &dyn Tell) -> Synced {
        let run = Run::new(self, asked, mode, tell);
        let listed = run.repositories().await;
        run.tally.expect(listed.repositories.len());
        stream::iter(&listed.repositories)
            .for_each_concurrent(run.width(), |(name, selections)| run.repository(name, selections))
            .await;
        if asked.prunes {
            run.prune(&listed).await;
        }
        run.tally.end()
    }
}

/// A repository, at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct At {
    upstream: Name,
    here: Name,
}

/// Which repositories a run is about.
#[derive(Debug, Default)]
struct Listed<'a> {
    repositories: BTreeMap<Name, Vec<&'a Selection>>,
    /// Whether every list was read to its end.
    is_complete: bool,
}

/// One run.
struct Run<'a> {
    domain: &'a Domain,
    asked: &'a Replication,
    upstream: Upstream,
    rate: Arc<RateLimit>,
    mark: Mark,
    mode: SyncMode,
    pace: Pace,
    patience: Patience,
    /// Whether the upstream has no referrers API: then tags say what refers to something, and are known.
    lists_by_tag: AtomicBool,
    /// Images at the same time, in all repositories together.
    places: Semaphore,
    /// Blobs that are being copied: images share layers.
    blobs: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// What was listed of each repository, if that is needed at the end.
    tags: Mutex<Vec<(At, BTreeSet<Tag>)>>,
    tally: Arc<Tally<'a>>,
}

impl<'a> Run<'a> {
    fn new(domain: &'a Domain, asked: &'a Replication, mode: SyncMode, tell: &'a dyn Tell) -> Self {
        let rate = Arc::new(RateLimit::new(domain, &asked.name, &asked.upstream));
        Self {
            domain,
            asked,
            upstream: Upstream::in_turn(asked.upstream.clone(), Arc::<RateLimit>::clone(&rate)),
            rate,
            mark: Mark::of_mirror(&asked.name),
            mode,
            pace: Pace::unlimited().with_bytes(asked.bytes_per_second),
            patience: Patience::default(),
            lists_by_tag: AtomicBool::new(false),
            places: Semaphore::new(asked.parallelism.clamp(1, Semaphore::MAX_PERMITS)),
            blobs: Mutex::default(),
            tags: Mutex::default(),
            tally: Arc::new(Tally::new(tell)),
        }
    }

    fn width(&self) -> usize {
        self.asked.parallelism.max(1)
    }

    /// Where a repository of the upstream is here.
    fn at(&self, name: &Name) -> Result<At, Fault> {
        let upstream = self.upstream.repository(name);
        let here = match &self.asked.path {
            None => upstream.clone(),
            Some(path) => {
                format!("{path}/{upstream}").parse().map_err(|error| Fault::Name(format!("{error}")))?
            }
        };
        match self.asked.taken.iter().find(|path| is_at_or_below(&here, path)) {
            Some(path) => Err(Fault::PathTaken(path.clone())),
            None => Ok(At { upstream, here }),
        }
    }

    /// Copies what is wanted of a repository.
    async fn repository(&self, name: &Name, selections: &[&Selection]) {
        let found = async {
            let at = self.at(name)?;
            let tags = self.tags_of(&at.upstream).await?;
            let states = self.states(&at.here).await?;
            Ok::<_, Fault>((at, tags, states))
        };
        let (at, tags, states) = match found.await {
            Ok(found) => found,
            Err(fault) => return self.tally.failed(name.to_string(), &fault),
        };
        let wanted = plan::wanted(&tags, selections);
        self.tally.found();
        let images = Images { at: &at, tags: &tags, states: &states, found: Mutex::default() };
        self.images(&images, &wanted, Sort::Image).await;
        if self.asked.with_referrers {
            let followers = {
                let found = images.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // What follows nothing that was copied has nobody's signature.
                let by_themselves = if self.asked.keys.is_none() { selections } else { &[] };
                plan::followers(&tags, by_themselves, &found.copied, &found.tried)
            };
            let followers = followers.into_iter().map(|tag| (tag, BTreeSet::new())).collect();
            self.images(&images, &followers, Sort::Follower).await;
        }
        if self.asked.prunes {
            self.tags.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, tags));
        }
    }

    async fn images(&self, images: &Images<'_>, wanted: &Wanted, sort: Sort) {
        self.tally.expect(wanted.len());
        stream::iter(wanted)
            .for_each_concurrent(self.width(), async |(tag, platforms)| {
                let Ok(_place) = self.places.acquire().await else { return };
                let reference = format!("{}:{tag}", images.at.upstream);
                match self.image(images, tag, platforms, sort).await {
                    Ok(fate) => self.tally.told(reference, fate),
                    Err(fault) => self.tally.failed(reference, &fault),
                }
            })
            .await;
    }

    /// Brings a tag to what it is at the upstream.
    async fn image(
        &self,
        images: &Images<'_>,
        tag: &Tag,
        platforms: &BTreeSet<Platform>,
        sort: Sort,
    ) -> Result<SyncFate, Fault> {
        let (mut digest, mut version) = self.tagged(&images.at.upstream, tag).await?;
        let mut state = images.states.get(tag).cloned();
        for _ in 0..LOOKS {
            images.tried(digest);
            let verdict = plan::judged(here(state.as_ref(), self.mark), digest, version);
            match verdict {
                Verdict::Later => return Ok(SyncFate::Later),
                Verdict::SetByOthers => return Err(Fault::SetLocally),
                Verdict::Same => {}
                Verdict::Copy => self.check_movable(images.at, tag, state.as_ref())?,
            }
            if sort == Sort::Image {
                self.check_signed(images.at, digest).await?;
            }
            let image = Image::new(images.at, images.tags, platforms);
            let is_new = match self.manifest(&image, digest, 0).await {
                Err(fault) if fault.is_of_what_is_gone() => {
                    let now = self.tagged(&images.at.upstream, tag).await?;
                    if now == (digest, version) {
                        return Err(fault);
                    }
                    (digest, version) = now;
                    continue;
                }
                outcome => outcome?,
            };
            images.copied(image.into_seen());
            if verdict == Verdict::Same {
                return Ok(if is_new { SyncFate::Copied } else { SyncFate::Unchanged });
            }
            if self.mode == SyncMode::DryRun {
                return Ok(SyncFate::Copied);
            }
            match self.set_tag(images.at, tag, digest, version, state.as_ref()).await {
                Err(Fault::Own(Error::Overtaken)) => {}
                outcome => return outcome.map(|()| SyncFate::Copied),
            }
            state = self.states(&images.at.here).await?.remove(tag);
        }
        Err(Fault::Moving)
    }

    /// Refuses to move a tag that is immutable here, before anything is copied for it.
    fn check_movable(&self, at: &At, tag: &Tag, state: Option<&TagState>) -> Result<(), Fault> {
        let rules = self.domain.immutability();
        let is_named = state.is_some_and(|state| !state.is_deleted);
        if is_named && rules.covering(&at.here, tag).is_some() {
            return Err(rules.refusal(&at.here, tag.clone()).into());
        }
        Ok(())
    }

    /// All tags of a repository here, deleted ones that still rest among them.
    async fn states(&self, repository: &Name) -> Result<HashMap<Tag, TagState>, Fault> {
        let unit = [Unit::Tags(repository.clone())];
        let (mut states, mut after) = (HashMap::new(), None::<String>);
        loop {
            let asked_after = after.as_deref();
            let read = |_| self.domain.meta.tag_states(repository, asked_after, PAGE);
            let page = self.domain.write_to(&unit, read).await?;
            let Some(last) = page.last() else { return Ok(states) };
            after = Some(last.tag.to_string());
            states.extend(page.into_iter().map(|state| (state.tag.clone(), state)));
        }
    }
}

/// What a tag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// It names what is pulled.
    Image,
    /// It is in place of a referrer of an image that was copied.
    Follower,
}

/// What a repository's images have in common, and what became of them.
struct Images<'a> {
    at: &'a At,
    tags: &'a BTreeSet<Tag>,
    states: &'a HashMap<Tag, TagState>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    tried: BTreeSet<Digest>,
    copied: BTreeSet<Digest>,
}

impl Images<'_> {
    fn tried(&self, digest: Digest) {
        self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).tried.insert(digest);
    }

    fn copied(&self, digests: BTreeSet<Digest>) {
        self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).copied.extend(digests);
    }
}

/// What a tag's row says that a verdict goes by.
fn here(state: Option<&TagState>, mark: Mark) -> Here {
    match state {
        None => Here::Nothing,
        Some(state) if state.is_deleted => Here::Deleted(state.generation.milliseconds()),
        Some(state) => Here::Named {
            digest: state.target,
            at: state.generation.milliseconds(),
            is_ours: state.generation.has(mark),
        },
    }
}
