// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Reading keys back: the exact reverse of `Display`.

use std::str::FromStr;

use stowage_oci::{Digest, Name};

use super::{Form, Key, Version};

/// The text is not a key of this grammar: another layout wrote it. It is left alone and reported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("object key {0:?} is not one that this version writes")]
pub struct UnknownKey(pub String);

impl FromStr for Key {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let key = text.strip_prefix("v1/").and_then(below_layout);
        // Numbers have several spellings and shards repeat other parts; only the one we write is ours.
        key.filter(|key| key.to_string() == text).ok_or_else(|| UnknownKey(text.to_owned()))
    }
}

fn below_layout(text: &str) -> Option<Key> {
    if text == "FORMAT" {
        return Some(Key::Format);
    }
    let (kind, rest) = text.split_once('/')?;
    match kind {
        "epoch" => {
            let (epoch, generation) = rest.split_once('.')?;
            Some(Key::Epoch {
                epoch: !u32::from_str_radix(epoch, 16).ok()?,
                generation: generation.parse().ok()?,
            })
        }
        "blob" => blob(rest),
        "up" => upload(rest),
        "run" => run(rest),
        "pulls" => pulls(rest),
        "r" => {
            let (repository, record) = rest.split_once("/~")?;
            in_repository(repository.parse().ok()?, record)
        }
        _ => None,
    }
}

fn blob(text: &str) -> Option<Key> {
    let mut parts = text.split('/');
    let (algorithm, _shard, hex, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let digest = format!("{algorithm}:{hex}").parse().ok()?;
    let mut fields = last.split('.');
    let (generation, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let form = match fields.next() {
        None => Form::Inline,
        Some("u") => Form::Upload,
        Some(tail) => Form::Tail(tail.strip_prefix('t')?.parse().ok()?),
    };
    Some(Key::Blob { digest, generation, size, form })
}

fn upload(text: &str) -> Option<Key> {
    let (_shard, last) = text.split_once('/')?;
    match last.split_once(".t") {
        None => Some(Key::Upload { generation: last.parse().ok()? }),
        Some((generation, lease)) => {
            Some(Key::UploadTail { generation: generation.parse().ok()?, lease: lease.parse().ok()? })
        }
    }
}

fn run(text: &str) -> Option<Key> {
    let mut parts = text.splitn(3, '/');
    let (kind, name, last) = (parts.next()?, parts.next()?, parts.next()?);
    let (generation, outcome) = last.split_once('.')?;
    Some(Key::Run {
        kind: kind.parse().ok()?,
        name: name.parse().ok()?,
        generation: generation.parse().ok()?,
        outcome: outcome.parse().ok()?,
    })
}

fn pulls(text: &str) -> Option<Key> {
    let (place, last) = text.split_once('/')?;
    if place == "snap" {
        let (day, generation) = last.split_once('.')?;
        return Some(Key::PullSnapshot { day: day.parse().ok()?, generation: generation.parse().ok()? });
    }
    let mut fields = last.splitn(3, '.');
    let (writer, number) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let is_last = match fields.next() {
        None => false,
        Some("end") => true,
        Some(_) => return None,
    };
    Some(Key::Pulls { day: place.parse().ok()?, writer, number, is_last })
}

fn in_repository(repository: Name, record: &str) -> Option<Key> {
    let mut parts = record.split('/');
    let (kind, of, last) = (parts.next()?, parts.next()?, parts.next()?);
    match kind {
        "b" => Some(Key::Link { repository, digest: dashed(of)?, generation: last.parse().ok()? }),
        "m" => {
            let digest = dashed(of)?;
            match last.strip_suffix(".x") {
                Some(generation) => {
                    Some(Key::ManifestDeleted { repository, digest, generation: generation.parse().ok()? })
                }
                None => Some(Key::Manifest { repository, digest, generation: last.parse().ok()? }),
            }
        }
        "p" => {
            let (version, generation) = last.split_once('.')?;
            let (digest, version) = (dashed(of)?, inverted(version)?);
            Some(Key::Ledger { repository, digest, version, generation: generation.parse().ok()? })
        }
        "s" => {
            let (digest, generation) = last.split_once('.')?;
            Some(Key::Referrer {
                repository,
                subject: dashed(of)?,
                digest: dashed(digest)?,
                generation: generation.parse().ok()?,
            })
        }
        "t" => tag(repository, of, last),
        _ => None,
    }
}

fn tag(repository: Name, tag: &str, record: &str) -> Option<Key> {
    let tag = tag.parse().ok()?;
    let mut fields = record.split('.');
    let (version, generation, target) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
    let version = inverted(version)?;
    let target = if target == "-" { None } else { Some(dashed(target)?) };
    match fields.next() {
        None => Some(Key::Tag { repository, tag, version, generation, target }),
        Some("x") => Some(Key::TagWithdrawn { repository, tag, version, generation, target }),
        Some(_) => None,
    }
}

fn inverted(text: &str) -> Option<Version> {
    let (epoch, seq) = text.split_at_checked(8)?;
    Some(Version { epoch: !u32::from_str_radix(epoch, 16).ok()?, seq: !u64::from_str_radix(seq, 16).ok()? })
}

fn dashed(text: &str) -> Option<Digest> {
    let (algorithm, hex) = text.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}
