// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Writes images of the registry into a file.
//!
//! Flow: what is wanted → manifests, and what they list and need, each once → the list of images → the file, blob by
//! blob. An index keeps its bytes and so its digest: of platforms that are not wanted the manifests stay out, and the
//! index lists what the file has not.
//! Guarantees: the same content gives the same file. Every blob was hashed on its way into it.
//! Never: asks an upstream. What a mirror has not fetched is named, and nothing is written.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt as _;
use stowage_oci::{Digest, Hasher, Manifest, Name, Platform, Reference, Tag, TagGlob};
use tokio::io::AsyncWrite;

use super::platforms::{children, chosen, platforms_of};
use crate::archive::{self, Descriptor, IMAGE_NAME, REF_NAME, Writer, blob_path};
use crate::domain::{Domain, Error, Place};
use crate::operation::Page;

/// Indexes within indexes are followed so deep.
const DEEPEST: usize = 8;
/// What clients without referrers put behind the digest in a tag.
const TAG_SUFFIXES: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// What is wanted, `[host/]repository:tag`, `…:pattern` or `…@digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The repository, as clients name it.
    pub repository: Name,
    /// Which of its images.
    pub which: Which,
}

/// Which images of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// One.
    One(Reference),
    /// Those whose tags fit.
    Tags(TagGlob),
}

/// Why a text does not say what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// Neither tag nor digest.
    #[error(
        "{0:?} has neither tag nor digest: say which image is meant, as NAME:1.0; NAME:* is all that have a tag"
    )]
    Nothing(String),
    /// Something in it is not what it should be.
    #[error("{text:?}: {problem}")]
    Wrong {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl std::str::FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let wrong = |problem: &dyn std::fmt::Display| WantedError::Wrong {
            text: text.to_owned(),
            problem: problem.to_string(),
        };
        let repository = |name: &str| name.parse::<Name>().map_err(|error| wrong(&error));
        if let Some((name, digest)) = text.split_once('@') {
            let digest: Digest = digest.parse().map_err(|error| wrong(&error))?;
            // A digest says more than the tag beside it.
            let (name, _) = archive::split_tag(name);
            return Ok(Self { repository: repository(name)?, which: Which::One(Reference::Digest(digest)) });
        }
        let (name, tag) = archive::split_tag(text);
        let tag = tag.ok_or_else(|| WantedError::Nothing(text.to_owned()))?;
        let which = if tag.contains(['*', '?']) {
            Which::Tags(tag.parse().map_err(|error| wrong(&error))?)
        } else {
            Which::One(Reference::Tag(tag.parse().map_err(|error| wrong(&error))?))
        };
        Ok(Self { repository: repository(name)?, which })
    }
}

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The images.
    pub wanted: Vec<Wanted>,
    /// Of indexes only the images for these; empty: for all.
    pub platforms: Vec<Platform>,
    /// Whether signatures, SBOMs and whatever else refers to them come too.
    pub referrers: bool,
    /// What the names begin with in the file.
    pub host: String,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such image.
    #[error("{0} is not in this registry")]
    Unknown(String),
    /// No tag fits.
    #[error("no tag of {repository} fits {pattern:?}")]
    NoTag {
        /// The repository.
        repository: Name,
        /// The pattern.
        pattern: String,
    },
    /// Nothing for these platforms.
    #[error("{name} has nothing for the platforms that are wanted; it lists {listed}")]
    NoPlatform {
        /// The image.
        name: String,
        /// What there is.
        listed: String,
    },
    /// A mirror has not fetched all of it.
    #[error(
        "{needed_by} needs {digest}, which is not here: it is a mirror's that was not fetched yet (`load` fetches \
         ahead of need), or for a platform that --platform leaves out"
    )]
    NotHere {
        /// The image that needs it.
        needed_by: String,
        /// What is missing.
        digest: Digest,
    },
    /// Indexes in indexes in indexes.
    #[error("{0} has indexes within indexes more than {DEEPEST} deep")]
    TooDeep(String),
    /// Not what was stored.
    #[error(
        "blob {digest} is damaged here: its bytes have digest {actual}; `verify --deep` tells what else is"
    )]
    Damaged {
        /// What it should be.
        digest: Box<Digest>,
        /// What it is.
        actual: Digest,
    },
    /// A document of ours that cannot be written or read.
    #[error("document of an image: {0}")]
    Document(#[from] serde_json::Error),
    /// A manifest that cannot be read.
    #[error(transparent)]
    Manifest(#[from] stowage_oci::ManifestError),
    /// The file does not take it.
    #[error("write the file: {0}")]
    File(#[from] std::io::Error),
    /// The registry does not give it.
    #[error("read {what}")]
    Registry {
        /// What was to be read.
        what: String,
        /// Why.
        #[source]
        source: Error,
    },
}

/// An image in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exported {
    /// Its name, with the host.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// How many manifests it lists that the file has not.
    pub absent: usize,
}

/// What an export came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Images, each name counted.
    pub images: u64,
    /// Manifests.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of both.
    pub bytes: u64,
}

impl ExportCounts {
    /// As a summary counts.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("images", self.images),
            ("exportedManifests", self.manifests),
            ("exportedBlobs", self.blobs),
            ("exportedBytes", self.bytes),
        ])
    }
}

/// What goes into the file.
enum Member {
    Manifest { repository: Name, media_type: String, size: u64 },
    Blob { repository: Name, size: u64 },
}

impl Member {
    const fn size(&self) -> u64 {
        match self {
            Self::Manifest { size, .. } | Self::Blob { size, .. } => *size,
        }
    }
}

/// Everything that was wanted, found and not yet written.
pub struct Export<'a> {
    domain: &'a Domain,
    options: &'a ExportOptions,
    members: BTreeMap<Digest, Member>,
    /// How many of its children each index has not.
    absent: BTreeMap<Digest, usize>,
    /// By name.
    images: BTreeMap<String, Digest>,
}

impl<'a> Export<'a> {
    /// Finds what is wanted, and all that it needs.
    pub async fn find(domain: &'a Domain, options: &'a ExportOptions) -> Result<Self, ExportError> {
        let (members, absent, images) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut export = Self { domain, options, members, absent, images };
        for wanted in &options.wanted {
            let repository = stored(domain, &wanted.repository);
            match &wanted.which {
                Which::One(reference) => export.image(&repository, &wanted.repository, reference).await?,
                Which::Tags(glob) => {
                    let tags = export.tags(&repository, glob).await?;
                    if tags.is_empty() {
                        let (repository, pattern) = (wanted.repository.clone(), glob.as_str().to_owned());
                        return Err(ExportError::NoTag { repository, pattern });
                    }
                    for tag in tags {
                        export.image(&repository, &wanted.repository, &Reference::Tag(tag)).await?;
                    }
                }
            }
        }
        Ok(export)
    }

    /// The images, by name.
    pub fn images(&self) -> impl Iterator<Item = Exported> {
        self.images.iter().map(|(name, digest)| Exported {
            name: name.clone(),
            digest: *digest,
            absent: self.absent.get(digest).copied().unwrap_or_default(),
        })
    }

    /// Writes the file. `show` is told of the bytes that are written and of all.
    pub async fn write<W: AsyncWrite + Unpin>(
        &self,
        out: W,
        show: impl Fn(u64, u64),
    ) -> Result<(W, ExportCounts), ExportError> {
        let descriptors = self.descriptors();
        let mut writer = Writer::begin(out, &archive::index(&descriptors)?).await?;
        let total = self.members.values().map(Member::size).sum();
        let mut counts = ExportCounts { images: descriptors.len() as u64, ..ExportCounts::default() };
        for (digest, member) in &self.members {
            let name = blob_path(digest);
            match member {
                Member::Manifest { repository, .. } => {
                    let body = self.manifest(repository, &Reference::Digest(*digest)).await?.1;
                    writer.member(&name, &body).await?;
                    counts.manifests += 1;
                }
                Member::Blob { repository, size } => {
                    let read = |bytes| show(counts.bytes + bytes, total);
                    writer.stream(&name, *size, self.content(repository, digest, read).await?).await?;
                    counts.blobs += 1;
                }
            }
            counts.bytes += member.size();
            show(counts.bytes, total);
        }
        Ok((writer.end().await?, counts))
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        let descriptor = |(name, digest): (&String, &Digest)| {
            let Member::Manifest { media_type, size, .. } = self.members.get(digest)? else { return None };
            let annotations = [IMAGE_NAME, REF_NAME].map(|key| (key.to_owned(), name.clone()));
            let media_type = Some(media_type.clone());
            Some(Descriptor { media_type, digest: *digest, size: *size, annotations: annotations.into() })
        };
        self.images.iter().filter_map(descriptor).collect()
    }

    async fn tags(&self, repository: &Name, glob: &TagGlob) -> Result<Vec<Tag>, ExportError> {
        let mut found = Vec::new();
        let mut page = Page::default();
        loop {
            let list = match self.domain.tags(repository, &page).await {
                Ok(list) => list,
                Err(Error::NameUnknown) => return Err(ExportError::Unknown(repository.to_string())),
                Err(source) => {
                    return Err(ExportError::Registry { what: format!("tags of {repository}"), source });
                }
            };
            page.after = list.tags.last().map(ToString::to_string);
            found.extend(list.tags.into_iter().filter(|tag| glob.matches(tag.as_str())));
            if !list.more {
                return Ok(found);
            }
        }
    }

    async fn image(
        &mut self,
        repository: &Name,
        named: &Name,
        reference: &Reference,
    ) -> Result<(), ExportError> {
        let separator = if matches!(reference, Reference::Tag(_)) { ':' } else { '@' };
        let name = format!("{}/{named}{separator}{reference}", self.options.host);
        let found = self.manifest(repository, reference).await?;
        let digest = found.0;
        let roots = self.add(repository, &name, found).await?;
        self.images.insert(name, digest);
        if self.options.referrers {
            for subject in roots {
                self.referrers(repository, named, subject).await?;
            }
        }
        Ok(())
    }

    /// Digest, bytes and type.
    async fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> Result<(Digest, Bytes, String), ExportError> {
        let unknown = || ExportError::Unknown(format!("{repository} {reference}"));
        match self.domain.manifest(repository, reference, false).await {
            Ok(found) => Ok((found.digest, found.body.ok_or_else(unknown)?, found.media_type)),
            Err(Error::ManifestUnknown) => Err(unknown()),
            Err(source) => {
                Err(ExportError::Registry { what: format!("manifest {reference} of {repository}"), source })
            }
        }
    }

    /// Adds a manifest and all that it lists; the manifests that were added or were there.
    async fn add(
        &mut self,
        repository: &Name,
        name: &str,
        root: (Digest, Bytes, String),
    ) -> Result<Vec<Digest>, ExportError> {
        let mut seen = Vec::new();
        let mut left = vec![(root, 0)];
        while let Some(((digest, body, media_type), depth)) = left.pop() {
            if seen.contains(&digest) {
                continue;
            }
            if depth > DEEPEST {
                return Err(ExportError::TooDeep(name.to_owned()));
            }
            seen.push(digest);
            let manifest = Manifest::parse(&body, Some(&media_type))?;
            for blob in &manifest.blobs {
                self.blob(repository, name, blob).await?;
            }
            if manifest.kind.is_index() {
                for child in self.children(repository, name, &digest, &body).await? {
                    left.push((child, depth + 1));
                }
            }
            let (repository, size) = (repository.clone(), body.len() as u64);
            self.members.insert(digest, Member::Manifest { repository, media_type, size });
        }
        Ok(seen)
    }

    /// What an index lists and is wanted and here.
    async fn children(
        &mut self,
        repository: &Name,
        name: &str,
        digest: &Digest,
        body: &Bytes,
    ) -> Result<Vec<(Digest, Bytes, String)>, ExportError> {
        let listed = children(body)?;
        let chosen = chosen(&listed, &self.options.platforms);
        if chosen.is_empty() && !listed.is_empty() {
            let listed = platforms_of(&listed);
            return Err(ExportError::NoPlatform { name: name.to_owned(), listed });
        }
        let (mut found, mut absent) = (Vec::new(), listed.len() - chosen.len());
        for child in chosen {
            if child.is_blob() {
                self.blob(repository, name, &child.digest).await?;
                continue;
            }
            match self.manifest(repository, &Reference::Digest(child.digest)).await {
                Ok(manifest) => found.push(manifest),
                // What a mirror was not asked for, or what was pushed without it.
                Err(ExportError::Unknown(_)) if self.options.platforms.is_empty() => absent += 1,
                Err(ExportError::Unknown(_)) => {
                    return Err(ExportError::NotHere { needed_by: name.to_owned(), digest: child.digest });
                }
                Err(error) => return Err(error),
            }
        }
        self.absent.insert(*digest, absent);
        Ok(found)
    }

    async fn blob(&mut self, repository: &Name, name: &str, digest: &Digest) -> Result<(), ExportError> {
        if self.members.contains_key(digest) {
            return Ok(());
        }
        match self.domain.blob(repository, digest, false).await {
            Ok(blob) => {
                let member = Member::Blob { repository: repository.clone(), size: blob.location.size };
                self.members.insert(*digest, member);
                Ok(())
            }
            Err(Error::BlobUnknown) => {
                Err(ExportError::NotHere { needed_by: name.to_owned(), digest: *digest })
            }
            Err(source) => {
                Err(ExportError::Registry { what: format!("blob {digest} of {repository}"), source })
            }
        }
    }

    /// The bytes of a blob. They end with an error if they are not those of its digest.
    async fn content(
        &self,
        repository: &Name,
        digest: &Digest,
        read: impl Fn(u64),
    ) -> Result<impl futures::Stream<Item = Result<Bytes, ExportError>>, ExportError> {
        let failed =
            |source| ExportError::Registry { what: format!("blob {digest} of {repository}"), source };
        let blob = self.domain.blob(repository, digest, false).await.map_err(failed)?;
        let stream = self.domain.read_blob(&blob, None).await.map_err(failed)?;
        let wanted = *digest;
        let what = format!("blob {digest} of {repository}");
        let bytes =
            stream.map_err(move |error| ExportError::Registry { what: what.clone(), source: error.into() });
        let hasher = Hasher::new(wanted.algorithm());
        let checked =
            futures::stream::try_unfold(Some((Box::pin(bytes), hasher)), move |course| async move {
                let Some((mut bytes, mut hasher)) = course else { return Ok(None) };
                if let Some(piece) = bytes.try_next().await? {
                    hasher.update(&piece);
                    return Ok(Some((piece, Some((bytes, hasher)))));
                }
                match hasher.finish() {
                    actual if actual == wanted => Ok(None),
                    actual => Err(ExportError::Damaged { digest: Box::new(wanted), actual }),
                }
            });
        let mut done = 0;
        Ok(checked.inspect_ok(move |piece: &Bytes| {
            done += piece.len() as u64;
            read(done);
        }))
    }

    /// What refers to a manifest, by its subject or by its tag, and what refers to that.
    async fn referrers(
        &mut self,
        repository: &Name,
        named: &Name,
        subject: Digest,
    ) -> Result<(), ExportError> {
        let (mut left, mut asked) = (vec![subject], BTreeSet::new());
        while let Some(subject) = left.pop() {
            if !asked.insert(subject) {
                continue;
            }
            for reference in self.referring(repository, &subject).await? {
                let name = match &reference {
                    Reference::Tag(tag) => format!("{}/{named}:{tag}", self.options.host),
                    Reference::Digest(digest) => format!("{}/{named}@{digest}", self.options.host),
                };
                let found = self.manifest(repository, &reference).await?;
                let digest = found.0;
                left.extend(self.add(repository, &name, found).await?);
                self.images.insert(name, digest);
            }
        }
        Ok(())
    }

    async fn referring(&self, repository: &Name, subject: &Digest) -> Result<Vec<Reference>, ExportError> {
        let failed = |source| ExportError::Registry { what: format!("referrers of {subject}"), source };
        let mut found = Vec::new();
        let mut page = Page::default();
        loop {
            let list = self.domain.referrers(repository, subject, &[], &page).await.map_err(failed)?;
            found.extend(list.manifests.into_iter().map(|row| Reference::Digest(row.digest)));
            match list.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        for suffix in TAG_SUFFIXES {
            let tag = format!("{}-{}{suffix}", subject.algorithm().as_str(), subject.hex());
            let Ok(tag) = tag.parse() else { continue };
            let reference = Reference::Tag(tag);
            if self.domain.manifest(repository, &reference, true).await.is_ok() {
                found.push(reference);
            }
        }
        Ok(found)
    }
}

/// Under which name a repository is stored.
fn stored(domain: &Domain, named: &Name) -> Name {
    match domain.mirrors().place(named, None) {
        Ok(Place::Mirror(at)) => at.stored,
        Ok(Place::Local(_) | Place::Either(..) | Place::Nowhere) | Err(_) => named.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_said_in_so_many_words() {
        let which = |text: &str| text.parse::<Wanted>().map(|wanted| wanted.which);
        assert!(matches!(which("team/app:v1"), Ok(Which::One(Reference::Tag(_)))));
        assert!(matches!(which("team/app:v1.*"), Ok(Which::Tags(_))));
        let digest = Digest::of(stowage_oci::Algorithm::Sha256, b"");
        for text in [format!("team/app@{digest}"), format!("team/app:v1@{digest}")] {
            assert!(matches!(which(&text), Ok(Which::One(Reference::Digest(_)))), "{text}");
        }
        assert!(matches!(which("team/app"), Err(WantedError::Nothing(_))));
        for text in ["Team/app:v1", "team/app:", "team/app@sha256:1", "team/*:v1"] {
            assert!(matches!(which(text), Err(WantedError::Wrong { .. })), "{text}");
        }
    }
}
