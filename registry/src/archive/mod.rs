// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Files with images in them, for machines that no network joins.
//!
//! Written: an OCI image layout as a tar file, the same bytes for the same content. Read: the same from anybody, and
//! what `docker save` and `podman save` write, old and new; either may be compressed with gzip.
//! Flow of reading: the heads of all members → what the file says of its images → every manifest → [`Archive`], which
//! has a place in the file for all that its images need. No member is unpacked: a name in the file is a word to look
//! up, never a path.
//! Guarantees: an [`Archive`] is whole. The bytes of its manifests have their digests; those of its blobs are compared
//! by whoever stores them.
//! Never: knows a registry.

mod docker;
mod error;
mod gzip;
mod layout;
mod names;
mod tar;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use stowage_oci::{Digest, Manifest, Name, Tag};
use tempfile::TempPath;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

pub use error::{ArchiveError, Trouble};
pub(crate) use layout::{IMAGE_NAME, REF_NAME, is_manifest};
pub(crate) use names::split_tag;
pub use names::{ImageName, NameTrouble};
pub use tar::Place;
pub use write::{Descriptor, Writer, blob_path, index};

/// The longest document about a file's images, in bytes.
const LONGEST_INDEX: u64 = 64 << 20;
/// How much of a blob is read at a time.
const PIECE: usize = 256 << 10;

/// An image that a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the file calls it; `None`: nothing.
    pub repository: Option<Name>,
    /// The tag that the file gives it.
    pub tag: Option<Tag>,
    /// Its manifest.
    pub digest: Digest,
}

/// A manifest that a file has.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its media type.
    pub media_type: String,
    /// Blobs that it needs.
    pub blobs: Vec<Digest>,
    /// Manifests that it lists and that the file has.
    pub children: Vec<Digest>,
    /// How many it lists that the file has not.
    pub absent: usize,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// In the file.
    There(Place),
    /// Made while it was read.
    Made(Bytes),
}

/// A file with images, of which everything but the bytes of its blobs was read.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    /// It is removed with this, where what was given had to be unpacked.
    _unpacked: Option<TempPath>,
    /// In the order of the file.
    pub images: Vec<Image>,
    manifests: BTreeMap<Digest, Held>,
    blobs: BTreeMap<Digest, Place>,
}

impl Archive {
    /// Reads what `path` has. Blocks.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let wrong = |trouble| ArchiveError { path: path.to_owned(), trouble: Box::new(trouble) };
        let mut file = Source::open(path).map_err(wrong)?;
        let unpacked = file.unpacked().map_err(wrong)?;
        let contents = tar::contents(&mut file.0, file.1).map_err(wrong)?;
        let read = if contents.has("oci-layout") || contents.has("index.json") {
            layout::read(&mut file, &contents)
        } else if contents.has("manifest.json") {
            docker::read(&mut file, &contents)
        } else if contents.has("repositories") {
            Err(Trouble::BeforeManifests)
        } else {
            Err(Trouble::NoImages)
        };
        let Read { images, manifests, blobs } = read.map_err(wrong)?;
        let path = unpacked.as_deref().unwrap_or(path).to_owned();
        Ok(Self { path, _unpacked: unpacked, images, manifests, blobs })
    }

    /// The manifest of this digest.
    #[must_use]
    pub fn manifest(&self, digest: &Digest) -> Option<&Held> {
        self.manifests.get(digest)
    }

    /// How long the blob is.
    #[must_use]
    pub fn size(&self, blob: &Digest) -> Option<u64> {
        self.blobs.get(blob).map(|place| place.size)
    }

    /// The bytes of a manifest.
    pub async fn manifest_bytes(&self, held: &Held) -> Result<Bytes, std::io::Error> {
        match &held.content {
            Content::Made(bytes) => Ok(bytes.clone()),
            Content::There(place) => {
                let mut bytes = Vec::new();
                self.at(*place).await?.read_to_end(&mut bytes).await?;
                Ok(bytes.into())
            }
        }
    }

    /// The bytes of a blob.
    pub async fn blob_bytes(
        &self,
        blob: &Digest,
    ) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, std::io::Error> {
        let place = self.blobs.get(blob).copied().ok_or(std::io::ErrorKind::NotFound)?;
        Ok(ReaderStream::with_capacity(self.at(place).await?, PIECE).boxed())
    }

    async fn at(&self, place: Place) -> Result<tokio::io::Take<tokio::fs::File>, std::io::Error> {
        let mut file = tokio::fs::File::open(&self.path).await?;
        file.seek(SeekFrom::Start(place.offset)).await?;
        Ok(file.take(place.size))
    }
}

/// What the readers of the formats come to.
struct Read {
    images: Vec<Image>,
    manifests: BTreeMap<Digest, Held>,
    blobs: BTreeMap<Digest, Place>,
}

/// A file to read from, and its length.
struct Source(File, u64);

impl Source {
    fn open(path: &Path) -> Result<Self, Trouble> {
        let file = File::open(path).map_err(Trouble::Io)?;
        let about = file.metadata().map_err(Trouble::Io)?;
        if !about.is_file() {
            return Err(Trouble::NoFile);
        }
        Ok(Self(file, about.len()))
    }

    /// Reads what the file unpacks to from now on, if it is compressed: in the file at this place.
    fn unpacked(&mut self) -> Result<Option<TempPath>, Trouble> {
        let Some(unpacked) = gzip::unpacked(&mut self.0)? else { return Ok(None) };
        let (file, path) = unpacked.into_parts();
        let length = file.metadata().map_err(Trouble::Io)?.len();
        *self = Self(file, length);
        Ok(Some(path))
    }

    /// A member as a whole.
    fn whole(&mut self, name: &str, place: Place, longest: u64) -> Result<Vec<u8>, Trouble> {
        if place.size > longest {
            return Err(Trouble::TooLong { name: name.to_owned(), size: place.size, longest });
        }
        let mut bytes = Vec::new();
        self.part(place)?.read_to_end(&mut bytes).map_err(Trouble::Io)?;
        Ok(bytes)
    }

    fn part(&mut self, place: Place) -> Result<std::io::Take<&mut File>, Trouble> {
        self.0.seek(SeekFrom::Start(place.offset)).map_err(Trouble::Io)?;
        Ok((&mut self.0).take(place.size))
    }
}

/// As many bytes as a manifest may have.
const LONGEST_MANIFEST: u64 = Manifest::MAX_SIZE as u64;

#[cfg(test)]
mod tests;
