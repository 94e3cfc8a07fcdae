// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What `docker save`, `podman save`, `skopeo copy … docker-archive:` and `crane pull` write: a `manifest.json` that
//! names a config and layers for each image.
//!
//! Such a file has no manifest as a registry has it, so one is made: of the OCI form, over config and layers as they
//! lie in the file. It is the same for the same file, and not that of the registry where the image came from.
//! Guarantees: every layer is the one that the config lists.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use stowage_oci::{Algorithm, Digest, Hasher};

use super::error::Trouble;
use super::names::ImageName;
use super::tar::{Contents, Place};
use super::{Content, Held, Image, LONGEST_INDEX, LONGEST_MANIFEST, Source};

const PIECE: usize = 256 << 10;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIPPED: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    // An image of nothing says null.
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: &'static str,
    digest: Digest,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    schema_version: u32,
    media_type: &'static str,
    config: Part,
    layers: Vec<Part>,
}

/// A layer as it lies in the file, and the digest of what it unpacks to.
#[derive(Clone)]
struct Layer {
    part: Part,
    unpacked: Digest,
}

pub(super) fn read(source: &mut Source, contents: &Contents) -> Result<super::Read, Trouble> {
    let name = "manifest.json";
    let place = contents.find(name)?.ok_or_else(|| missing("a saved image", name))?;
    let bytes = source.whole(name, place, LONGEST_INDEX)?;
    let wrong = |source| Trouble::Json { name: name.to_owned(), source };
    let saved: Vec<Saved> = serde_json::from_slice(&bytes).map_err(wrong)?;
    let mut reader = Reader {
        source,
        contents,
        layers: BTreeMap::new(),
        manifests: BTreeMap::new(),
        blobs: BTreeMap::new(),
    };
    let mut images = Vec::new();
    for saved in saved {
        let digest = reader.image(&saved)?;
        let names = saved.repo_tags.unwrap_or_default();
        if names.is_empty() {
            images.push(Image { repository: None, tag: None, digest });
        }
        for name in names {
            let parsed: Result<ImageName, _> = name.parse();
            let ImageName { repository, tag, .. } =
                parsed.map_err(|trouble| Trouble::Name { name, trouble })?;
            images.push(Image { repository: Some(repository), tag, digest });
        }
    }
    let Reader { manifests, blobs, .. } = reader;
    Ok(super::Read { images, manifests, blobs })
}

fn missing(needed_by: &str, name: &str) -> Trouble {
    Trouble::Missing { needed_by: needed_by.to_owned(), name: name.to_owned() }
}

struct Reader<'a> {
    source: &'a mut Source,
    contents: &'a Contents,
    /// Those that were read, so that a shared one is read once.
    layers: BTreeMap<Place, Layer>,
    manifests: BTreeMap<Digest, Held>,
    blobs: BTreeMap<Digest, Place>,
}

impl Reader<'_> {
    fn image(&mut self, saved: &Saved) -> Result<Digest, Trouble> {
        let (config, place, diffs) = self.config(&saved.config)?;
        let names = saved.layers.as_deref().unwrap_or_default();
        if names.len() != diffs.len() {
            let config = saved.config.clone();
            return Err(Trouble::Layers { config, listed: diffs.len(), found: names.len() });
        }
        let mut layers = Vec::new();
        for (name, diff) in names.iter().zip(diffs) {
            let Layer { part, unpacked } = self.layer(name, &saved.config, diff.algorithm())?;
            if unpacked != diff {
                return Err(Trouble::Digest { name: name.clone(), actual: unpacked });
            }
            layers.push(part);
        }
        self.blobs.insert(config.digest, place);
        let mut blobs = vec![config.digest];
        for layer in &layers {
            if !blobs.contains(&layer.digest) {
                blobs.push(layer.digest);
            }
        }
        let made = Made { schema_version: 2, media_type: IMAGE, config, layers };
        let wrong = |source| Trouble::Json { name: saved.config.clone(), source };
        let bytes = serde_json::to_vec(&made).map_err(wrong)?;
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let held = Held {
            media_type: IMAGE.to_owned(),
            blobs,
            children: Vec::new(),
            absent: 0,
            content: Content::Made(bytes.into()),
        };
        self.manifests.insert(digest, held);
        Ok(digest)
    }

    /// The config, where it is, and what it says of the layers. Where its name is its digest, it must have that.
    fn config(&mut self, name: &str) -> Result<(Part, Place, Vec<Digest>), Trouble> {
        let place = self.contents.find(name)?.ok_or_else(|| missing("manifest.json", name))?;
        let bytes = self.source.whole(name, place, LONGEST_MANIFEST)?;
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let stem = name.rsplit(['/', ':']).next().unwrap_or(name).trim_end_matches(".json");
        if let Ok(said) = format!("sha256:{stem}").parse::<Digest>()
            && said != digest
        {
            return Err(Trouble::Digest { name: name.to_owned(), actual: digest });
        }
        let wrong = |source| Trouble::Json { name: name.to_owned(), source };
        let config: Config = serde_json::from_slice(&bytes).map_err(wrong)?;
        let part = Part { media_type: CONFIG, digest, size: place.size };
        Ok((part, place, config.rootfs.diff_ids.unwrap_or_default()))
    }

    fn layer(&mut self, name: &str, config: &str, unpacked: Algorithm) -> Result<Layer, Trouble> {
        let place = self.contents.find(name)?.ok_or_else(|| missing(config, name))?;
        if let Some(known) = self.layers.get(&place) {
            return Ok(known.clone());
        }
        let mut magic = [0; 2];
        if place.size > 2 {
            self.source.part(place)?.read_exact(&mut magic).map_err(Trouble::Io)?;
        }
        let is_packed = magic == *b"\x1f\x8b";
        let mut packed = Hashing { inner: self.source.part(place)?, hasher: Hasher::new(Algorithm::Sha256) };
        let (unpacked, digest) = if is_packed {
            let mut stream = MultiGzDecoder::new(packed);
            let unpacked = hashed(&mut stream, unpacked).map_err(|error| broken(name, error))?;
            let mut packed = stream.into_inner();
            io::copy(&mut packed, &mut io::sink()).map_err(Trouble::Io)?;
            (unpacked, packed.hasher.finish())
        } else {
            let found = hashed(&mut packed, unpacked).map_err(Trouble::Io)?;
            (found, packed.hasher.finish())
        };
        let media_type = if is_packed { GZIPPED } else { LAYER };
        self.blobs.insert(digest, place);
        let layer = Layer { part: Part { media_type, digest, size: place.size }, unpacked };
        self.layers.insert(place, layer.clone());
        Ok(layer)
    }
}

/// What cannot be unpacked is damaged; what cannot be read is the system's trouble.
fn broken(name: &str, error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Trouble::Unpackable(name.to_owned())
        }
        _ => Trouble::Io(error),
    }
}

/// Hashes what passes by.
struct Hashing<'a> {
    inner: io::Take<&'a mut File>,
    hasher: Hasher,
}

impl io::Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

fn hashed(stream: &mut impl io::Read, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
