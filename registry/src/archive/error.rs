// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Why a file's images cannot be read.

use std::path::PathBuf;

use stowage_oci::{Digest, ManifestError};

use super::names::NameTrouble;

/// A file whose images cannot be read. Nothing of it was used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {trouble}", .path.display())]
pub struct ArchiveError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub trouble: Box<Trouble>,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The system does not give it.
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
    /// A folder, or a pipe.
    #[error("is not a file; images are read from a tar file that can be read twice")]
    NoFile,
    /// Packed otherwise than with gzip.
    #[error("is compressed with {0}; decompress it first")]
    Compressed(&'static str),
    /// Packed with gzip, and wrong.
    #[error("is compressed with gzip and cannot be unpacked; copy it again")]
    Gzip,
    /// What it unpacks to finds no place.
    #[error("cannot be unpacked into {}: {source}; name a folder with room for it in TMPDIR", .folder.display())]
    NoRoom {
        /// The folder for temporary files.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else.
    #[error("is not a tar file")]
    NotTar,
    /// A tar file that ends too early.
    #[error("ends in the middle{}; copy it again", .0.as_ref().map(|name| format!(" of {name}")).unwrap_or_default())]
    Truncated(Option<String>),
    /// A tar file with damage.
    #[error("is damaged at byte {0}; copy it again")]
    Damaged(u64),
    /// More names than we keep in mind.
    #[error("has more members than an archive of images can have")]
    TooMany,
    /// A name that leads out of the archive.
    #[error("has a member {0:?}, whose name leads out of the archive; nothing is read from such a file")]
    Escape(String),
    /// A link that leads nowhere or in a circle.
    #[error("has a link {0:?} that leads to no member")]
    DeadLink(String),
    /// A document that is too long.
    #[error("{name} has {size} bytes; at most {longest} are read")]
    TooLong {
        /// The member.
        name: String,
        /// How long it is.
        size: u64,
        /// How long it may be.
        longest: u64,
    },
    /// A tar file of other things.
    #[error(
        "has no images: neither index.json (an OCI image layout) nor manifest.json (docker save, podman save) is in it"
    )]
    NoImages,
    /// `docker save` of before 2016.
    #[error(
        "was saved by Docker before 1.10, which wrote no manifest.json; load it into a newer one and save it again"
    )]
    BeforeManifests,
    /// A member is missing.
    #[error("{needed_by} needs {name}, which is not in the file")]
    Missing {
        /// Who needs it.
        needed_by: String,
        /// What is missing.
        name: String,
    },
    /// A document that is not JSON, or not of its form.
    #[error("{name} cannot be read: {source}")]
    Json {
        /// The member.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A layout of the future.
    #[error("is an OCI image layout of version {0:?}; 1.0.0 is known")]
    Version(String),
    /// A manifest that is none.
    #[error("manifest {digest}: {source}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// Bytes that are not what their name says.
    #[error("{name} has digest {actual}; the file is damaged or was changed")]
    Digest {
        /// The member.
        name: String,
        /// The digest that it has.
        actual: Digest,
    },
    /// A layer that does not unpack.
    #[error("{0} cannot be unpacked; the file is damaged")]
    Unpackable(String),
    /// Another length than is written about it.
    #[error("{name} has {size} bytes, and {said} are written about it; the file is damaged or was changed")]
    Size {
        /// The member.
        name: String,
        /// How long it is.
        size: u64,
        /// How long it should be.
        said: u64,
    },
    /// The config of an image speaks of other layers.
    #[error("{config} lists {listed} layers, and manifest.json {found} for it")]
    Layers {
        /// The config.
        config: String,
        /// How many layers it has.
        listed: usize,
        /// How many there are.
        found: usize,
    },
    /// Indexes in indexes in indexes.
    #[error("has indexes within indexes more than {0} deep")]
    TooDeep(usize),
    /// A name that cannot be one here.
    #[error("an image in it is named {name:?}: {trouble}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        trouble: NameTrouble,
    },
}
