// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A bucket as many pushes and deletions leave it: the records of layout 1, written straight into its folder.
//!
//! Pushing that much takes many times as long as what is measured. That it is spelled as Stowage spells it shows
//! in the first rebuild: it must adopt everything, and find nothing that is foreign.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use stowage_oci::{Algorithm, Digest};

use crate::work::{CONFIG, LAYER, MANIFEST};

/// Repositories that images are spread over.
const REPOSITORIES: u64 = 20;
/// Blobs of an image, its config among them. None is shared.
const BLOBS: u64 = 3;
/// What repositories of images are named after.
const LIVE: &str = "live";
const DELETED: &str = "deleted";
/// 2026-01-01, in milliseconds: when the first push was.
const BEGUN: u128 = 1_767_225_600_000;

/// What is in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Manifests that live, each under a tag.
    pub(crate) manifests: u64,
    /// Manifests that were deleted, each with its tag.
    pub(crate) deleted: u64,
    /// All objects.
    pub(crate) objects: u64,
    /// Those that nothing needs when the time in the trash is over.
    pub(crate) garbage: u64,
}

/// Puts images into the bucket in `folder`: those with the numbers `live`, and some that were deleted.
pub(crate) fn fill(
    folder: &Path,
    live: std::ops::Range<u64>,
    deleted: std::ops::Range<u64>,
) -> Result<Filled> {
    let mut filled = Filled::default();
    for number in live {
        filled.objects += Image::new(LIVE, number).write(folder)?;
        filled.manifests += 1;
    }
    for number in deleted {
        let image = Image::new(DELETED, number);
        let objects = image.write(folder)? + image.delete(folder)?;
        filled.objects += objects;
        filled.garbage += objects;
        filled.deleted += 1;
    }
    Ok(filled)
}

struct Image {
    /// The keys of its repository's records begin so.
    records: String,
    number: u64,
    /// Tells its generations from those of the other kind.
    salt: u64,
    blobs: Vec<(Digest, Vec<u8>)>,
    manifest: Vec<u8>,
    digest: Digest,
}

impl Image {
    fn new(kind: &str, number: u64) -> Self {
        let blob = |place: u64| {
            let content = format!("{{\"{kind}\":[{number},{place}]}}").into_bytes();
            (Digest::of(Algorithm::Sha256, &content), content)
        };
        let blobs: Vec<_> = (0..BLOBS).map(blob).collect();
        let described: Vec<_> = blobs
            .iter()
            .zip([CONFIG, LAYER, LAYER])
            .map(|((digest, content), kind)| {
                json!({ "mediaType": kind, "digest": digest.to_string(), "size": content.len() })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1..],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(Algorithm::Sha256, &manifest);
        let records = format!("v1/r/bench/{kind}-{:02}", number % REPOSITORIES);
        Self { records, number, salt: u64::from(kind == DELETED) << 7, blobs, manifest, digest }
    }

    /// A generation of its own for each object.
    fn generation(&self, place: u64) -> String {
        let at = BEGUN + u128::from(self.number);
        let noise = u128::from((self.number << 8 | self.salt | place).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        base32(at << 80 | noise)
    }

    fn tag(&self, seq: u64, place: u64, target: &str) -> String {
        let (epoch, generation) = (!1_u32, self.generation(place));
        format!("{}/~t/v{}/{epoch:08x}{:016x}.{generation}.{target}", self.records, self.number, !seq)
    }

    fn manifest_record(&self) -> String {
        format!("{}/~m/{}/{}", self.records, dashed(&self.digest), self.generation(40))
    }

    /// Writes what a push leaves; how many objects.
    fn write(&self, folder: &Path) -> Result<u64> {
        for ((digest, content), place) in self.blobs.iter().zip(0..) {
            let (hex, generation, size) = (digest.hex(), self.generation(place), content.len());
            let shard: String = hex.chars().take(2).collect();
            put(
                folder,
                &format!("v1/blob/{}/{shard}/{hex}/{generation}.{size}", digest.algorithm()),
                content,
            )?;
            let link = format!("{}/~b/{}/{}", self.records, dashed(digest), self.generation(20 + place));
            put(folder, &link, b"")?;
        }
        put(folder, &self.manifest_record(), &self.manifest)?;
        put(folder, &self.tag(2 * self.number, 41, &dashed(&self.digest)), b"")?;
        Ok(2 * BLOBS + 2)
    }

    /// Writes what the deletion of the manifest leaves; how many objects.
    fn delete(&self, folder: &Path) -> Result<u64> {
        put(folder, &self.tag(2 * self.number + 1, 42, "-"), b"")?;
        put(folder, &format!("{}.x", self.manifest_record()), b"")?;
        Ok(2)
    }
}

fn dashed(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// As a generation is written: 26 digits of five bits, the highest first.
fn base32(value: u128) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digit = |place: u32| char::from(DIGITS[(value >> (5 * place)) as usize & 31]);
    (0..26).rev().map(digit).collect()
}

fn put(folder: &Path, key: &str, content: &[u8]) -> Result<()> {
    let path = folder.join(key);
    let parent = path.parent().expect("a key has a parent");
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&path, content))
        .with_context(|| format!("write {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_spelled_as_a_ulid() {
        assert_eq!(base32(0), "0".repeat(26));
        assert_eq!(base32(u128::MAX), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(base32(0x0156_d1f9_7ff2_d5a0_1f2b_3c4d_5e6f_7081).len(), 26);
    }

    #[test]
    fn every_object_has_a_key_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let filled = fill(folder.path(), 0..3, 0..2).unwrap();
        let mut files = 0;
        let mut folders = vec![folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files += 1 }
            }
        }
        assert_eq!((filled.objects, filled.garbage), (files, 20));
        assert_eq!((filled.manifests, filled.deleted), (3, 2));
    }
}
