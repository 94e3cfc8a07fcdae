// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the bucket alone says: a second reader of its layout, by the reading rules and nothing else of ours.
//!
//! A tag is its highest record that is not withdrawn and is a tombstone or names a manifest that lives. A
//! manifest lives if it has a record without marker. Data exists if a pointer does and what it points at.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// The bucket, read.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Tags that name something, by repository and tag; digests as `alg-hex`.
    pub(super) tags: BTreeMap<(String, String), String>,
    /// Live manifests by repository and digest: the generations whose records live.
    pub(super) manifests: BTreeMap<(String, String), BTreeSet<String>>,
    /// Bytes of manifests that live.
    pub(super) bodies: BTreeMap<String, Bytes>,
    /// Links by repository and digest: their generations.
    pub(super) links: BTreeMap<(String, String), BTreeSet<String>>,
    /// Referrer entries: repository, subject, digest and generation of the manifest.
    pub(super) referrers: BTreeSet<(String, String, String, String)>,
    /// Records of promotions by their keys.
    pub(super) ledger: BTreeMap<String, Bytes>,
    /// Digests whose data is there: the keys that say so and those of the bytes.
    pub(super) data: BTreeMap<String, BTreeMap<String, String>>,
    /// Keys whose bytes are not those of their digest.
    pub(super) wrong: Vec<String>,
    /// Pointers to nothing.
    pub(super) dangling: Vec<String>,
    /// Keys that no grammar knows.
    pub(super) unknown: Vec<String>,
}

#[derive(Debug)]
struct TagRecord {
    /// What orders: smaller is newer.
    version: String,
    id: String,
    target: Option<String>,
}

#[derive(Default)]
struct Reading {
    records: BTreeMap<(String, String), Vec<TagRecord>>,
    withdrawn: BTreeSet<((String, String), String)>,
    manifests: BTreeMap<(String, String), BTreeSet<String>>,
    deleted: BTreeSet<((String, String), String)>,
    found: Bucket,
}

/// Reads everything.
pub(super) fn read(contents: &BTreeMap<String, Bytes>) -> Bucket {
    let mut reading = Reading::default();
    for key in contents.keys() {
        if reading.take(key, contents).is_none() {
            reading.found.unknown.push(key.clone());
        }
    }
    reading.finish()
}

/// Whether the key is that of a promotion's record.
pub(super) fn is_ledger(key: &str) -> bool {
    key.contains("/~p/")
}

fn is_digest_of(dashed: &str, bytes: &[u8]) -> bool {
    use stowage_oci::{Algorithm, Digest};
    let algorithm = if dashed.starts_with("sha512") { Algorithm::Sha512 } else { Algorithm::Sha256 };
    Digest::of(algorithm, bytes).to_string().replace(':', "-") == dashed
}

impl Reading {
    fn take(&mut self, key: &str, contents: &BTreeMap<String, Bytes>) -> Option<()> {
        let below = key.strip_prefix("v1/")?;
        if below == "FORMAT" || below.starts_with("epoch/") || below.starts_with("up/") {
            return Some(());
        }
        if let Some(blob) = below.strip_prefix("blob/") {
            return self.blob(key, blob, contents);
        }
        let (repository, record) = below.strip_prefix("r/")?.split_once("/~")?;
        let mut parts = record.split('/');
        let (kind, of, last) = (parts.next()?, parts.next()?, parts.next()?);
        let at = (repository.to_owned(), of.to_owned());
        match kind {
            "b" => drop(self.found.links.entry(at).or_default().insert(last.to_owned())),
            "m" => {
                if let Some(generation) = last.strip_suffix(".x") {
                    self.deleted.insert((at, generation.to_owned()));
                    return Some(());
                }
                if !is_digest_of(of, &contents[key]) {
                    self.found.wrong.push(key.to_owned());
                }
                self.found.bodies.insert(of.to_owned(), contents[key].clone());
                self.manifests.entry(at).or_default().insert(last.to_owned());
            }
            "s" => {
                let (digest, generation) = last.split_once('.')?;
                let entry = (at.0, at.1, digest.to_owned(), generation.to_owned());
                self.found.referrers.insert(entry);
            }
            "t" => self.tag(at, last)?,
            "p" => drop(self.found.ledger.insert(key.to_owned(), contents[key].clone())),
            _ => return None,
        }
        Some(())
    }

    fn tag(&mut self, at: (String, String), record: &str) -> Option<()> {
        if let Some(record) = record.strip_suffix(".x") {
            self.withdrawn.insert((at, record.to_owned()));
            return Some(());
        }
        let mut fields = record.splitn(3, '.');
        let (version, _generation, target) = (fields.next()?, fields.next()?, fields.next()?);
        let target = (target != "-").then(|| target.to_owned());
        let record = TagRecord { version: version.to_owned(), id: record.to_owned(), target };
        self.records.entry(at).or_default().push(record);
        Some(())
    }

    fn blob(&mut self, key: &str, below: &str, contents: &BTreeMap<String, Bytes>) -> Option<()> {
        let mut parts = below.split('/');
        let (algorithm, _, hex, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let mut fields = last.split('.');
        let (generation, _size, form) = (fields.next()?, fields.next()?, fields.next());
        let shard: String = generation.chars().skip(24).collect();
        let bytes = match form {
            None => key.to_owned(),
            Some("u") => format!("v1/up/{shard}/{generation}"),
            Some(tail) => format!("v1/up/{shard}/{generation}.{tail}"),
        };
        let digest = format!("{algorithm}-{hex}");
        match contents.get(&bytes) {
            Some(content) if is_digest_of(&digest, content) => {
                self.found.data.entry(digest).or_default().insert(key.to_owned(), bytes);
            }
            Some(_) => self.found.wrong.push(key.to_owned()),
            None => self.found.dangling.push(key.to_owned()),
        }
        Some(())
    }

    fn finish(mut self) -> Bucket {
        for (at, generations) in std::mem::take(&mut self.manifests) {
            let lives = |generation: &String| !self.deleted.contains(&(at.clone(), generation.clone()));
            let live: BTreeSet<String> = generations.into_iter().filter(lives).collect();
            if !live.is_empty() {
                self.found.manifests.insert(at, live);
            }
        }
        for (at, mut records) in std::mem::take(&mut self.records) {
            records.sort_by(|a, b| (&a.version, &a.id).cmp(&(&b.version, &b.id)));
            let counts = |record: &&TagRecord| {
                let names =
                    |target: &String| self.found.manifests.contains_key(&(at.0.clone(), target.clone()));
                !self.withdrawn.contains(&(at.clone(), record.id.clone()))
                    && record.target.as_ref().is_none_or(names)
            };
            if let Some(target) = records.iter().find(counts).and_then(|record| record.target.clone()) {
                self.found.tags.insert(at, target);
            }
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"{}";
    const DIGEST: &str = "sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    const GENERATION: &str = "01arz3ndektsv4rrffq69g5fav";

    fn bucket(keys: &[&str]) -> Bucket {
        let content = |key: &&str| if key.contains("~m/") { BODY } else { b"" };
        let contents: BTreeMap<String, Bytes> =
            keys.iter().map(|key| ((*key).to_owned(), Bytes::from_static(content(key)))).collect();
        read(&contents)
    }

    fn manifest() -> String {
        format!("v1/r/a/~m/{DIGEST}/{GENERATION}")
    }

    fn tag(version: &str, target: &str) -> String {
        format!("v1/r/a/~t/latest/{version}.{GENERATION}.{target}")
    }

    #[test]
    fn the_newest_record_that_counts_is_the_tag() {
        let (old, gone, at) = (tag("02", DIGEST), tag("01", "-"), ("a".to_owned(), "latest".to_owned()));
        assert_eq!(bucket(&[&manifest(), &old]).tags[&at], DIGEST);
        assert!(bucket(&[&manifest(), &old, &gone]).tags.is_empty(), "a tombstone");
        let withdrawn = format!("{gone}.x");
        assert_eq!(bucket(&[&manifest(), &old, &gone, &withdrawn]).tags[&at], DIGEST);
        let dangling = tag("00", "sha256-00");
        assert_eq!(bucket(&[&manifest(), &old, &dangling]).tags[&at], DIGEST);
    }

    #[test]
    fn a_marked_manifest_is_dead_and_its_tags_with_it() {
        let marker = format!("{}.x", manifest());
        let dead = bucket(&[&manifest(), &marker, &tag("02", DIGEST)]);
        assert!(dead.manifests.is_empty() && dead.tags.is_empty(), "{dead:?}");
    }

    #[test]
    fn bytes_of_another_digest_and_keys_of_another_grammar_are_found() {
        let wrong = bucket(&["v1/blob/sha256/00/0011/01arz3ndektsv4rrffq69g5fav.0", "v1/strange"]);
        assert_eq!(wrong.wrong.len(), 1);
        assert_eq!(wrong.unknown, ["v1/strange"]);
    }
}
