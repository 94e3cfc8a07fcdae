// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! OCI image layouts in a tar file: those that we export, and those of skopeo, crane, podman, `ctr`, BuildKit and
//! newer `docker save`.
//!
//! An index may list manifests that the file has not: other platforms, that were left out. What an image's manifest
//! needs must be there.

use std::collections::BTreeMap;

use serde::Deserialize;
use stowage_oci::{Digest, Manifest, ManifestKind, Tag};

use super::error::Trouble;
use super::names::ImageName;
use super::tar::{Contents, Place};
use super::write::{Descriptor, blob_path};
use super::{Content, Held, Image, LONGEST_INDEX, LONGEST_MANIFEST, Read, Source};

/// Where the full name of an image stands.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Where its name or only its tag stands.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes within indexes are followed so deep.
const DEEPEST: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    // Some write null for none.
    manifests: Option<Vec<Descriptor>>,
}

pub(super) fn read(source: &mut Source, contents: &Contents) -> Result<Read, Trouble> {
    // Older `docker save` and some others leave the first out.
    if let Some(layout) = document::<Layout>(source, contents, "oci-layout")?
        && layout.image_layout_version != "1.0.0"
    {
        return Err(Trouble::Version(layout.image_layout_version));
    }
    let missing =
        || Trouble::Missing { needed_by: "an OCI image layout".to_owned(), name: "index.json".to_owned() };
    let index: Index = document(source, contents, "index.json")?.ok_or_else(missing)?;
    let mut reader = Reader { source, contents, manifests: BTreeMap::new(), blobs: BTreeMap::new() };
    let mut images = Vec::new();
    for descriptor in index.manifests.unwrap_or_default() {
        let digest = descriptor.digest;
        if !reader.manifest(&descriptor, 0)? {
            return Err(Trouble::Missing { needed_by: "index.json".to_owned(), name: blob_path(&digest) });
        }
        images.push(named(&descriptor)?);
    }
    let Reader { manifests, blobs, .. } = reader;
    Ok(Read { images, manifests, blobs })
}

fn document<T: for<'de> Deserialize<'de>>(
    source: &mut Source,
    contents: &Contents,
    name: &str,
) -> Result<Option<T>, Trouble> {
    let Some(place) = contents.find(name)? else { return Ok(None) };
    let bytes = source.whole(name, place, LONGEST_INDEX)?;
    let wrong = |source| Trouble::Json { name: name.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(wrong)
}

/// What an image is called. Where only its tag is told, it has no repository.
fn named(descriptor: &Descriptor) -> Result<Image, Trouble> {
    let digest = descriptor.digest;
    let wrong = |name: &str| {
        let name = name.to_owned();
        |trouble| Trouble::Name { name, trouble }
    };
    let annotation = |key| descriptor.annotations.get(key).filter(|name: &&String| !name.is_empty());
    if let Some(full) = annotation(IMAGE_NAME) {
        let ImageName { repository, tag, .. } = full.parse().map_err(wrong(full))?;
        return Ok(Image { repository: Some(repository), tag, digest });
    }
    let Some(name) = annotation(REF_NAME) else { return Ok(Image { repository: None, tag: None, digest }) };
    if name.contains(['/', ':', '@']) {
        let ImageName { repository, tag, .. } = name.parse().map_err(wrong(name))?;
        return Ok(Image { repository: Some(repository), tag, digest });
    }
    let tag: Tag = name.parse().map_err(|error| wrong(name)(super::NameTrouble::Tag(error)))?;
    Ok(Image { repository: None, tag: Some(tag), digest })
}

struct Reader<'a> {
    source: &'a mut Source,
    contents: &'a Contents,
    manifests: BTreeMap<Digest, Held>,
    blobs: BTreeMap<Digest, Place>,
}

impl Reader<'_> {
    /// Reads a manifest and what it lists. `false`: the file has it not.
    fn manifest(&mut self, descriptor: &Descriptor, depth: usize) -> Result<bool, Trouble> {
        let digest = descriptor.digest;
        if self.manifests.contains_key(&digest) {
            return Ok(true);
        }
        if depth > DEEPEST {
            return Err(Trouble::TooDeep(DEEPEST));
        }
        let name = blob_path(&digest);
        let Some(place) = self.contents.find(&name)? else { return Ok(false) };
        if place.size != descriptor.size {
            return Err(Trouble::Size { name, size: place.size, said: descriptor.size });
        }
        let bytes = self.source.whole(&name, place, LONGEST_MANIFEST)?;
        let actual = Digest::of(digest.algorithm(), &bytes);
        if actual != digest {
            return Err(Trouble::Digest { name, actual });
        }
        let manifest = Manifest::parse(&bytes, descriptor.media_type.as_deref());
        let manifest = manifest.map_err(|source| Trouble::Manifest { digest, source })?;
        let mut held = Held {
            media_type: manifest.media_type.clone(),
            blobs: Vec::new(),
            children: Vec::new(),
            absent: 0,
            content: Content::There(place),
        };
        for blob in manifest.blobs {
            self.needed(&digest, blob, &mut held)?;
        }
        if manifest.kind.is_index() {
            self.children(&digest, &bytes, &mut held, depth)?;
        }
        self.manifests.insert(digest, held);
        Ok(true)
    }

    fn children(
        &mut self,
        digest: &Digest,
        bytes: &[u8],
        held: &mut Held,
        depth: usize,
    ) -> Result<(), Trouble> {
        let wrong = |source| Trouble::Json { name: blob_path(digest), source };
        let index: Index = serde_json::from_slice(bytes).map_err(wrong)?;
        for child in index.manifests.unwrap_or_default() {
            let is_manifest = child.media_type.as_deref().is_none_or(is_manifest);
            if !is_manifest {
                // Caches of builders list layers.
                self.needed(digest, child.digest, held)?;
            } else if !self.manifest(&child, depth + 1)? {
                held.absent += 1;
            } else if !held.children.contains(&child.digest) {
                held.children.push(child.digest);
            }
        }
        Ok(())
    }

    fn needed(&mut self, by: &Digest, blob: Digest, held: &mut Held) -> Result<(), Trouble> {
        let name = blob_path(&blob);
        let Some(place) = self.contents.find(&name)? else {
            return Err(Trouble::Missing { needed_by: format!("manifest {by}"), name });
        };
        self.blobs.insert(blob, place);
        held.blobs.push(blob);
        Ok(())
    }
}

/// Whether a registry has this among its manifests.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    ManifestKind::ALL.iter().any(|kind| kind.media_type() == media_type)
}
