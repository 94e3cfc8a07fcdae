// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Brings the images of a file into the registry.
//!
//! Flow: where each image goes, and whether it may → blobs → manifests, what they list first → tags. Each step for all
//! images before the next begins, so that nothing has a name before everything in the file was found to be what it
//! says.
//! Guarantees: the digests are those of the file. What is here already is not written again, so that a run that was
//! killed is repeated. What no client may push to, nothing is imported to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use stowage_oci::{Digest, Glob, Name, Reference, Tag};

use crate::archive::{Archive, Held};
use crate::domain::{BodyError, Chunk, Domain, Error, Place, PutManifest};
use crate::operation::Mode;

/// Blobs on their way at the same time.
const AT_ONCE: usize = 4;
/// Whose uploads these are. No user has a colon in the name.
const PRINCIPAL: &str = "import:";

/// Under which names images are brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Under those of the file, without the host.
    AsNamed,
    /// Under those of the file, below this one.
    Below(Name),
    /// All in one repository; with a tag, if there is only one image.
    As(Name, Option<Tag>),
}

/// Why nothing more was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nobody pushes there.
    #[error("{repository}: {why}; nothing was imported")]
    Refused {
        /// The repository.
        repository: Name,
        /// Why it takes no writes.
        why: &'static str,
    },
    /// It is not known where an image should go.
    #[error(
        "an image in the file, {0}, has no repository in its name: say where it goes with --as; nothing was imported"
    )]
    Nameless(Digest),
    /// A name that is too long below another, or of another alphabet.
    #[error("{name}: {source}; nothing was imported")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: stowage_oci::NameError,
    },
    /// A tag for several images.
    #[error(
        "the file has {0} images, and a tag can name only one of them: give --as without a tag; nothing was imported"
    )]
    OneTag(usize),
    /// One tag, two images.
    #[error("two images of the file would be {0}; nothing was imported")]
    Twice(String),
    /// The file has no image.
    #[error("the file has no images")]
    Empty,
    /// The repository wants what an index lists to exist.
    #[error(
        "{repository} takes an index only with everything that it lists, and {digest} lists {absent} manifests that \
         the file has not: export it without --platform; nothing was imported"
    )]
    Sparse {
        /// The repository.
        repository: Name,
        /// The index.
        digest: Digest,
        /// How many are missing.
        absent: usize,
    },
    /// The file broke off, or is another by now.
    #[error("the file cannot be read any more: {0}")]
    File(#[from] std::io::Error),
    /// Bytes that are not what they should be.
    #[error(
        "blob {wanted} of the file has digest {actual}: the file is damaged or was changed, copy it again; no \
         manifest and no tag was imported"
    )]
    Damaged {
        /// What it should be.
        wanted: Box<Digest>,
        /// What it is.
        actual: Digest,
    },
    /// The registry did not take it.
    #[error("{what}")]
    Registry {
        /// What was to be stored.
        what: String,
        /// Why.
        #[source]
        source: Error,
    },
}

impl ImportError {
    /// Whether the registry takes no such thing, whoever brings it.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Sparse { .. })
    }

    /// Whether the command should have been another.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        matches!(self, Self::Nameless(_) | Self::Name { .. } | Self::OneTag(_) | Self::Twice(_) | Self::Empty)
    }
}

/// What came of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Where it is now.
    pub repository: Name,
    /// Its tag, if it has one.
    pub tag: Option<Tag>,
    /// Its digest.
    pub digest: Digest,
    /// Whether it was there before.
    pub was_here: bool,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Images, each name counted.
    pub images: u64,
    /// Of which were there before.
    pub present: u64,
    /// Manifests that were stored.
    pub manifests: u64,
    /// Blobs that were stored.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ImportCounts {
    /// As a summary counts.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("images", self.images),
            ("imagesPresent", self.present),
            ("importedManifests", self.manifests),
            ("importedBlobs", self.blobs),
            ("importedBytes", self.bytes),
        ])
    }
}

/// What of the configuration holds for writes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which changes may be made.
    pub mode: Mode,
    /// Where an index needs all that it lists.
    pub strict_indexes: Vec<Glob>,
}

/// An image with its place.
struct Target {
    repository: Name,
    tag: Option<Tag>,
    digest: Digest,
}

/// Imports everything in `archive`. `tell` hears of each image, `show` of the bytes that were stored and of all that
/// may have to be.
pub async fn import(
    domain: &Domain,
    archive: &Archive,
    placement: &Placement,
    rules: &Rules,
    tell: impl Fn(&Imported),
    show: impl Fn(u64, u64),
) -> Result<ImportCounts, ImportError> {
    let targets = targets(archive, placement)?;
    let needs = needs(archive, &targets);
    for (repository, need) in &needs {
        ensure_writable(domain, repository, rules)?;
        ensure_complete(archive, repository, need, rules)?;
    }
    let mut import = Import { domain, archive, counts: ImportCounts::default(), stored: BTreeSet::new() };
    import.blobs(&needs, &show).await?;
    for (repository, need) in &needs {
        for digest in &need.manifests {
            import.manifest(repository, digest).await?;
        }
    }
    for target in targets {
        tell(&import.tag(target).await?);
    }
    Ok(import.counts)
}

fn targets(archive: &Archive, placement: &Placement) -> Result<Vec<Target>, ImportError> {
    let images = &archive.images;
    if images.is_empty() {
        return Err(ImportError::Empty);
    }
    let distinct: BTreeSet<Digest> = images.iter().map(|image| image.digest).collect();
    let mut targets: Vec<Target> = Vec::new();
    for image in images {
        let (repository, tag) = match (placement, &image.repository) {
            (Placement::As(_, Some(_)), _) if distinct.len() > 1 => {
                return Err(ImportError::OneTag(distinct.len()));
            }
            (Placement::As(name, tag), _) => (name.clone(), tag.clone().or_else(|| image.tag.clone())),
            (_, None) => return Err(ImportError::Nameless(image.digest)),
            (Placement::AsNamed, Some(own)) => (own.clone(), image.tag.clone()),
            (Placement::Below(name), Some(own)) => {
                let below = format!("{name}/{own}");
                let parsed = below.parse().map_err(|source| ImportError::Name { name: below, source });
                (parsed?, image.tag.clone())
            }
        };
        let same = |other: &&Target| other.repository == repository && other.tag == tag;
        match targets.iter().find(same) {
            Some(other) if other.digest == image.digest => {}
            Some(_) if tag.is_some() => {
                let tag = tag.as_ref().map(Tag::as_str).unwrap_or_default();
                return Err(ImportError::Twice(format!("{repository}:{tag}")));
            }
            _ => targets.push(Target { repository, tag, digest: image.digest }),
        }
    }
    Ok(targets)
}

/// What a repository needs.
#[derive(Default)]
struct Need {
    /// What is listed stands before what lists it.
    manifests: Vec<Digest>,
    blobs: BTreeSet<Digest>,
}

fn needs(archive: &Archive, targets: &[Target]) -> BTreeMap<Name, Need> {
    let mut needs: BTreeMap<Name, Need> = BTreeMap::new();
    for target in targets {
        add(archive, &target.digest, needs.entry(target.repository.clone()).or_default());
    }
    needs
}

fn add(archive: &Archive, digest: &Digest, need: &mut Need) {
    let Some(held) = archive.manifest(digest).filter(|_| !need.manifests.contains(digest)) else { return };
    for child in &held.children {
        add(archive, child, need);
    }
    need.blobs.extend(&held.blobs);
    need.manifests.push(*digest);
}

/// The rules that hold for every client hold here.
fn ensure_writable(domain: &Domain, repository: &Name, rules: &Rules) -> Result<(), ImportError> {
    let refused = |why| Err(ImportError::Refused { repository: repository.clone(), why });
    if rules.mode == Mode::ReadOnly {
        return refused("the registry is in mode ReadOnly");
    }
    if domain.virtuals().hides(repository) {
        return refused(
            "lies below the path of a virtual repository, where it would never be seen: import it into a member",
        );
    }
    if domain.is_copied(repository) {
        return refused(
            "is a mirror's, which copies to it: choose another name with --repository-prefix or --as",
        );
    }
    match domain.mirrors().place(repository, None) {
        Ok(Place::Local(_) | Place::Either(..)) => Ok(()),
        Ok(Place::Mirror(_) | Place::Nowhere) | Err(_) => refused(
            "is a mirror's, which has only what its upstream has: choose another name with --repository-prefix or --as",
        ),
    }
}

fn ensure_complete(
    archive: &Archive,
    repository: &Name,
    need: &Need,
    rules: &Rules,
) -> Result<(), ImportError> {
    if !rules.strict_indexes.iter().any(|glob| glob.matches(repository.as_str())) {
        return Ok(());
    }
    for digest in &need.manifests {
        if let Some(Held { absent, .. }) = archive.manifest(digest).filter(|held| held.absent > 0) {
            let (repository, digest, absent) = (repository.clone(), *digest, *absent);
            return Err(ImportError::Sparse { repository, digest, absent });
        }
    }
    Ok(())
}

struct Import<'a> {
    domain: &'a Domain,
    archive: &'a Archive,
    counts: ImportCounts,
    /// Manifests that were not here before.
    stored: BTreeSet<(Name, Digest)>,
}

impl Import<'_> {
    async fn blobs(
        &mut self,
        needs: &BTreeMap<Name, Need>,
        show: &impl Fn(u64, u64),
    ) -> Result<(), ImportError> {
        let all =
            needs.iter().flat_map(|(repository, need)| need.blobs.iter().map(move |blob| (repository, blob)));
        let all: Vec<(&Name, &Digest)> = all.collect();
        let size = |blob: &Digest| self.archive.size(blob).unwrap_or_default();
        let total = all.iter().map(|(_, blob)| size(blob)).sum();
        let done = AtomicU64::new(0);
        let this = &*self;
        let work = |(repository, blob): (&Name, &Digest)| {
            let (repository, blob) = (repository.clone(), *blob);
            let done = &done;
            async move {
                let stored = this.blob(&repository, &blob).await?;
                let before = done.fetch_add(size(&blob), Ordering::Relaxed);
                show(before + size(&blob), total);
                Ok::<_, ImportError>(stored)
            }
        };
        let work: Vec<_> = all.into_iter().map(work).collect();
        let stored: Vec<Option<u64>> = stream::iter(work).buffer_unordered(AT_ONCE).try_collect().await?;
        for bytes in stored.into_iter().flatten() {
            self.counts.blobs += 1;
            self.counts.bytes += bytes;
        }
        Ok(())
    }

    /// How many bytes were stored; `None`: it was here.
    async fn blob(&self, repository: &Name, blob: &Digest) -> Result<Option<u64>, ImportError> {
        let failed = |source| ImportError::Registry { what: format!("blob {blob} for {repository}"), source };
        match self.domain.blob(repository, blob, true).await {
            Ok(_) => return Ok(None),
            Err(Error::BlobUnknown) => {}
            Err(error) => return Err(failed(error)),
        }
        let sources = self.domain.repositories_with(blob).await.map_err(failed)?;
        if self.domain.mount(repository, blob, &sources).await.map_err(failed)? {
            return Ok(None);
        }
        let size = self.archive.size(blob).unwrap_or_default();
        let body = self.archive.blob_bytes(blob).await?;
        let body = body.map_err(|error| BodyError::Broken(Box::new(error)));
        let chunk = Chunk { start: None, length: Some(size), body: body.boxed() };
        match self.domain.push_blob(repository, PRINCIPAL, blob, chunk).await {
            Ok(()) => Ok(Some(size)),
            Err(Error::DigestMismatch { actual }) => {
                Err(ImportError::Damaged { wanted: Box::new(*blob), actual })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn manifest(&mut self, repository: &Name, digest: &Digest) -> Result<(), ImportError> {
        let reference = Reference::Digest(*digest);
        let known = self.domain.manifest(repository, &reference, true).await;
        match known {
            Ok(_) => return Ok(()),
            Err(Error::ManifestUnknown) => {}
            Err(source) => {
                return Err(ImportError::Registry {
                    what: format!("manifest {digest} for {repository}"),
                    source,
                });
            }
        }
        self.put(repository, reference, digest).await?;
        self.counts.manifests += 1;
        self.stored.insert((repository.clone(), *digest));
        Ok(())
    }

    async fn tag(&mut self, target: Target) -> Result<Imported, ImportError> {
        let Target { repository, tag, digest } = target;
        let mut was_here = !self.stored.contains(&(repository.clone(), digest));
        if let Some(tag) = &tag {
            let reference = Reference::Tag(tag.clone());
            let now = self.domain.manifest(&repository, &reference, true).await.ok().map(|now| now.digest);
            was_here = now == Some(digest);
            if !was_here {
                self.put(&repository, reference, &digest).await?;
            }
        }
        self.counts.images += 1;
        self.counts.present += u64::from(was_here);
        Ok(Imported { repository, tag, digest, was_here })
    }

    async fn put(&self, repository: &Name, reference: Reference, digest: &Digest) -> Result<(), ImportError> {
        let Some(held) = self.archive.manifest(digest) else { return Ok(()) };
        let put = PutManifest {
            repository: repository.clone(),
            reference,
            claimed: Some(*digest),
            tags: Vec::new(),
            content_type: Some(held.media_type.clone()),
            body: self.archive.manifest_bytes(held).await?,
        };
        let what = || format!("manifest {digest} for {repository}");
        match self.domain.put_manifest(put).await {
            Ok(_) => Ok(()),
            Err(Error::DigestMismatch { actual }) => {
                Err(ImportError::Damaged { wanted: Box::new(*digest), actual })
            }
            Err(source) => Err(ImportError::Registry { what: what(), source }),
        }
    }
}
