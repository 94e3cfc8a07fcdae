// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Fetches images through a pull-through mirror ahead of need.
//!
//! Like a replica whose clients want all of them: what is stored is not fetched again, replicas that fetch the same
//! are waited for, and what the upstream says of its limits holds. So a run that ended early is repeated.
//! Guarantees: one image that cannot be had does not hold up the others.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use stowage_oci::{Digest, Manifest, Name, Platform, Reference};

use super::export::{Wanted, Which};
use super::platforms::{children, chosen, platforms_of};
use crate::domain::{Asking, Domain, Error, Mirrored, Place};

/// Images on their way at the same time.
const IMAGES: usize = 3;
/// Blobs of one of them.
const BLOBS: usize = 4;
/// Indexes within indexes are followed so deep.
const DEEPEST: usize = 8;

/// What to fetch.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The mirror.
    pub mirror: String,
    /// The images, as the upstream names them, or by the path or the host of the mirror.
    pub wanted: Vec<Wanted>,
    /// Of indexes only the images for these; empty: for all.
    pub platforms: Vec<Platform>,
}

/// Why not everything was fetched.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such mirror.
    #[error("there is no mirror {wanted:?} here; there is {known}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// It asks nobody.
    #[error("mirror {0} is suspended or offline, and asks its upstream for nothing")]
    Offline(String),
    /// A name that is not one of its own.
    #[error(
        "{name} is not a repository of mirror {mirror}: give it as the upstream names it; nothing was fetched"
    )]
    Elsewhere {
        /// The repository.
        name: Name,
        /// The mirror.
        mirror: String,
    },
    /// Some could not be had. The others are here.
    #[error("{failed} of {all} images were not fetched, see above for why; run it again for these alone")]
    Incomplete {
        /// How many.
        failed: u64,
        /// Of how many.
        all: u64,
    },
}

impl LoadError {
    /// Whether the command should have been another.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        !matches!(self, Self::Incomplete { .. })
    }
}

/// Why an image was not fetched.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", crate::config::explained(.0))]
    Registry(#[from] Error),
    #[error("the upstream could not be asked, or has another that is in quarantine; what is here may be old")]
    Stale,
    #[error("has nothing for the platforms that are wanted; it lists {0}")]
    NoPlatform(String),
    #[error("no tag fits")]
    NoTag,
    #[error("has indexes within indexes more than {DEEPEST} deep")]
    TooDeep,
    #[error("index cannot be read: {0}")]
    Index(#[from] serde_json::Error),
}

/// What came of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its name here.
    pub name: String,
    /// Its digest, and how many bytes of blobs came for it; or why it is not here.
    pub outcome: Result<(Digest, u64), String>,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// Images that are here now.
    pub images: u64,
    /// Images that are not.
    pub failed: u64,
    /// Bytes of blobs that came.
    pub bytes: u64,
}

impl LoadCounts {
    /// As a summary counts.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([("images", self.images), ("imagesFailed", self.failed), ("fetchedBytes", self.bytes)])
    }
}

/// Fetches all that is wanted. `tell` hears of each image when it is here, or is not to be had.
pub async fn load(
    domain: &Domain,
    options: &LoadOptions,
    tell: impl Fn(&Loaded),
) -> Result<LoadCounts, LoadError> {
    let wanted = places(domain, options)?;
    let load = Load { domain, platforms: &options.platforms };
    let mut counts = LoadCounts::default();
    let mut note = |loaded: &Loaded| {
        match &loaded.outcome {
            Ok((_, bytes)) => {
                counts.images += 1;
                counts.bytes += bytes;
            }
            Err(_) => counts.failed += 1,
        }
        tell(loaded);
    };
    let mut images = Vec::new();
    for (at, which) in wanted {
        match load.references(&at, &which).await {
            Ok(references) => images.extend(references.into_iter().map(|reference| (at.clone(), reference))),
            Err((name, trouble)) => note(&Loaded { name, outcome: Err(trouble.to_string()) }),
        }
    }
    let work: Vec<_> = images.into_iter().map(|(at, reference)| load.image(at, reference)).collect();
    let mut work = stream::iter(work).buffer_unordered(IMAGES);
    while let Some(loaded) = work.next().await {
        note(&loaded);
    }
    match counts.failed {
        0 => Ok(counts),
        failed => Err(LoadError::Incomplete { failed, all: failed + counts.images }),
    }
}

/// What is wanted, in the repositories of the mirror.
fn places(domain: &Domain, options: &LoadOptions) -> Result<Vec<(Mirrored, Which)>, LoadError> {
    let mirrors = domain.mirrors();
    let Some(mirror) = mirrors.named(&options.mirror) else {
        let known: Vec<&str> = mirrors.all().map(|mirror| mirror.settings.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(LoadError::Unknown { wanted: options.mirror.clone(), known });
    };
    if !mirror.settings.asks_upstream {
        return Err(LoadError::Offline(options.mirror.clone()));
    }
    let place = |Wanted { repository, which }: &Wanted| {
        let elsewhere = || LoadError::Elsewhere { name: repository.clone(), mirror: options.mirror.clone() };
        let at = match mirrors.place(repository, None) {
            Ok(Place::Mirror(at)) if at.mirror.settings.name == options.mirror => at,
            Ok(Place::Local(_) | Place::Either(..)) => {
                mirror.repository(repository).map_err(|_too_long| elsewhere())?
            }
            Ok(Place::Mirror(_) | Place::Nowhere) | Err(_) => return Err(elsewhere()),
        };
        Ok((at, which.clone()))
    };
    options.wanted.iter().map(place).collect()
}

struct Load<'a> {
    domain: &'a Domain,
    platforms: &'a [Platform],
}

impl Load<'_> {
    async fn references(&self, at: &Mirrored, which: &Which) -> Result<Vec<Reference>, (String, Trouble)> {
        let glob = match which {
            Which::One(reference) => return Ok(vec![reference.clone()]),
            Which::Tags(glob) => glob,
        };
        let failed = |trouble| (format!("{}:{}", at.stored, glob.as_str()), trouble);
        let tags = self.domain.upstream_tags(at, glob).await.map_err(|error| failed(error.into()))?;
        if tags.is_empty() {
            return Err(failed(Trouble::NoTag));
        }
        Ok(tags.into_iter().map(Reference::Tag).collect())
    }

    async fn image(&self, at: Mirrored, reference: Reference) -> Loaded {
        let separator = if matches!(reference, Reference::Tag(_)) { ':' } else { '@' };
        let name = format!("{}{separator}{reference}", at.stored);
        let outcome = Box::pin(self.fetched(&at, &reference)).await;
        Loaded { name, outcome: outcome.map_err(|trouble| trouble.to_string()) }
    }

    async fn fetched(&self, at: &Mirrored, reference: &Reference) -> Result<(Digest, u64), Trouble> {
        let (mut root, mut bytes) = (None, 0);
        let mut seen = BTreeSet::new();
        let mut left = vec![(reference.clone(), 0)];
        while let Some((reference, depth)) = left.pop() {
            if depth > DEEPEST {
                return Err(Trouble::TooDeep);
            }
            let (answer, _) =
                self.domain.mirrored_manifest(at, &reference, false, Asking::AsConfigured).await;
            let answer = answer?;
            if answer.stale {
                return Err(Trouble::Stale);
            }
            root.get_or_insert(answer.digest);
            if !seen.insert(answer.digest) {
                continue;
            }
            let body = answer.body.unwrap_or_default();
            let manifest = Manifest::parse(&body, Some(&answer.media_type)).map_err(Error::from)?;
            let mut blobs = manifest.blobs;
            if manifest.kind.is_index() {
                for child in self.chosen(&body)? {
                    match child {
                        Listed::Manifest(digest) => left.push((Reference::Digest(digest), depth + 1)),
                        Listed::Blob(digest) => blobs.push(digest),
                    }
                }
            }
            bytes += self.blobs(at, blobs).await?;
        }
        // The first was asked for by `reference`.
        root.map(|root| (root, bytes)).ok_or(Trouble::Registry(Error::ManifestUnknown))
    }

    fn chosen(&self, body: &[u8]) -> Result<Vec<Listed>, Trouble> {
        let listed = children(body)?;
        let chosen = chosen(&listed, self.platforms);
        if chosen.is_empty() && !listed.is_empty() {
            return Err(Trouble::NoPlatform(platforms_of(&listed)));
        }
        let sort = |child: &super::platforms::Child| {
            if child.is_blob() { Listed::Blob(child.digest) } else { Listed::Manifest(child.digest) }
        };
        Ok(chosen.into_iter().map(sort).collect())
    }

    async fn blobs(&self, at: &Mirrored, blobs: Vec<Digest>) -> Result<u64, Trouble> {
        let work = blobs.into_iter().map(|blob| async move {
            Ok::<_, Trouble>(self.domain.store_mirrored_blob(at, &blob).await?.unwrap_or_default())
        });
        let work: Vec<_> = work.collect();
        let came: Vec<u64> = stream::iter(work).buffer_unordered(BLOBS).try_collect().await?;
        Ok(came.into_iter().sum())
    }
}

/// What an index lists.
enum Listed {
    Manifest(Digest),
    Blob(Digest),
}
