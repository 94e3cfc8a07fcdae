// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The names of objects in the bucket: grammar, version 1.
//!
//! Every key but `FORMAT` ends in a fresh [`Generation`] and is written at most once, so that a late or
//! repeated delete can only hit what it was meant for. Keys are derived from rows, never stored beside them.
//! The grammar is a promise to later releases: what exists is never changed, only added to.
//!
//! `~` cannot occur in a repository name, so a key is read unambiguously from the left up to `/~`.

mod day;
mod generation;
mod parse;
mod run;

use std::fmt;

pub use day::{Day, NotADay};
pub use generation::{Generation, Mark};
pub use parse::UnknownKey;
pub use run::{NotARunName, RunKind, RunName, RunOutcome, UnknownWord};
use stowage_oci::{Digest, Name, Tag};

/// The order of a tag's records and of the ledger: the incarnation of the database, then its sequence.
/// No clock takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The incarnation of the database that gave `seq`.
    pub epoch: u32,
    /// From the database's sequence `versions`.
    pub seq: u64,
}

/// Written inverted, so that a listing shows the newest first.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:016x}", !self.epoch, !self.seq)
    }
}

/// Where the verified bytes of a blob are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Under the blob's own key.
    Inline,
    /// Under the key of its multipart upload; the blob's key ends in `.u` and is an empty pointer.
    Upload,
    /// Under the key of the only tail of lease `n` of its upload; the blob's key ends in `.t<n>`.
    Tail(u32),
}

/// A part of a multipart upload that the store has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// From 1, without gaps.
    pub number: u16,
    /// Its length in bytes. All parts have one size; the last may be shorter.
    pub size: u64,
    /// What the store answered: names these very bytes.
    pub etag: String,
}

/// An object in the bucket. `Display` gives the key below the storage prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Layout and owner of the prefix.
    Format,
    /// An incarnation of the database took over.
    Epoch {
        /// Its number.
        epoch: u32,
        /// Who took over.
        generation: Generation,
    },
    /// Verified content, or a pointer to it: its existence is the proof.
    Blob {
        /// The content's digest.
        digest: Digest,
        /// The upload that brought it.
        generation: Generation,
        /// The content's length in bytes.
        size: u64,
        /// Whether this is the data itself or a pointer, and to what.
        form: Form,
    },
    /// The target of a multipart upload. Means nothing without its pointer.
    Upload {
        /// The upload.
        generation: Generation,
    },
    /// What lease `n` of an upload staged below one part.
    UploadTail {
        /// The upload.
        generation: Generation,
        /// The lease.
        lease: u32,
    },
    /// A repository sees a blob.
    Link {
        /// The repository.
        repository: Name,
        /// The blob.
        digest: Digest,
        /// This link.
        generation: Generation,
    },
    /// A manifest, its bytes as the body.
    Manifest {
        /// The repository.
        repository: Name,
        /// The manifest.
        digest: Digest,
        /// This push of it.
        generation: Generation,
    },
    /// That push of the manifest is deleted.
    ManifestDeleted {
        /// The repository.
        repository: Name,
        /// The manifest.
        digest: Digest,
        /// The push that is deleted.
        generation: Generation,
    },
    /// A manifest refers to a subject.
    Referrer {
        /// The repository.
        repository: Name,
        /// What is referred to.
        subject: Digest,
        /// The manifest that refers.
        digest: Digest,
        /// That manifest's generation.
        generation: Generation,
    },
    /// One record of a tag: it names a digest, or says that the tag is deleted.
    Tag {
        /// The repository.
        repository: Name,
        /// The tag.
        tag: Tag,
        /// The place in the tag's order.
        version: Version,
        /// This record.
        generation: Generation,
        /// The manifest; `None` is a tombstone.
        target: Option<Digest>,
    },
    /// That tag record was never acknowledged and is withdrawn.
    TagWithdrawn {
        /// The repository.
        repository: Name,
        /// The tag.
        tag: Tag,
        /// The record's version.
        version: Version,
        /// The record's generation.
        generation: Generation,
        /// The record's target.
        target: Option<Digest>,
    },
    /// What a job reports of a run.
    Run {
        /// Which job.
        kind: RunKind,
        /// Of what.
        name: RunName,
        /// This run: later ones of the name have later generations.
        generation: Generation,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// Manifests that one process has seen pulled, as compressed lines.
    Pulls {
        /// The day on which they were.
        day: Day,
        /// The process.
        writer: Generation,
        /// The how manieth object of that process.
        number: u32,
        /// Whether the process writes no more.
        is_last: bool,
    },
    /// The last pulls of all manifests, as they were known on a day, as compressed lines.
    PullSnapshot {
        /// The day.
        day: Day,
        /// This snapshot.
        generation: Generation,
    },
    /// A promotion took effect: what it was decided by, as the body. It has the place and the generation of the tag
    /// record that it set.
    Ledger {
        /// The repository that was promoted into.
        repository: Name,
        /// What was promoted.
        digest: Digest,
        /// The place of the tag record.
        version: Version,
        /// The generation of the tag record.
        generation: Generation,
    },
    /// An object of the start-up self-test, removed at once.
    Probe {
        /// The run.
        generation: Generation,
        /// Which object of the run: lower-case letters.
        step: &'static str,
    },
}

impl Key {
    /// The length in bytes of the object, where the key says it.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        match self {
            Self::Blob { size, form: Form::Inline, .. } => Some(*size),
            _ => None,
        }
    }

    /// The repository whose record it is.
    #[must_use]
    pub const fn repository(&self) -> Option<&Name> {
        match self {
            Self::Link { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::ManifestDeleted { repository, .. }
            | Self::Referrer { repository, .. }
            | Self::Tag { repository, .. }
            | Self::TagWithdrawn { repository, .. }
            | Self::Ledger { repository, .. } => Some(repository),
            _ => None,
        }
    }
}

/// A digest as a path component: `<alg>-<hex>`.
struct Dashed<'a>(&'a Digest);

impl fmt::Display for Dashed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.algorithm(), self.0.hex())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("v1/FORMAT"),
            Self::Epoch { epoch, generation } => write!(f, "v1/epoch/{:08x}.{generation}", !epoch),
            Self::Blob { digest, generation, size, form } => {
                write!(f, "{}{generation}.{size}", Self::blob_prefix(digest))?;
                match form {
                    Form::Inline => Ok(()),
                    Form::Upload => f.write_str(".u"),
                    Form::Tail(lease) => write!(f, ".t{lease}"),
                }
            }
            Self::Upload { generation } => write!(f, "v1/up/{}/{generation}", generation.shard()),
            Self::UploadTail { generation, lease } => {
                write!(f, "v1/up/{}/{generation}.t{lease}", generation.shard())
            }
            Self::Link { repository, digest, generation } => {
                write!(f, "{}{generation}", Self::link_prefix(repository, digest))
            }
            Self::Manifest { repository, digest, generation } => {
                write!(f, "{}{generation}", Self::manifest_prefix(repository, digest))
            }
            Self::ManifestDeleted { repository, digest, generation } => {
                write!(f, "{}{generation}.x", Self::manifest_prefix(repository, digest))
            }
            Self::Referrer { repository, subject, digest, generation } => {
                write!(f, "{}{}.{generation}", Self::referrer_prefix(repository, subject), Dashed(digest))
            }
            Self::Tag { repository, tag, version, generation, target } => {
                write_tag(f, repository, tag, *version, *generation, target.as_ref())
            }
            Self::TagWithdrawn { repository, tag, version, generation, target } => {
                write_tag(f, repository, tag, *version, *generation, target.as_ref())?;
                f.write_str(".x")
            }
            Self::Run { kind, name, generation, outcome } => {
                write!(f, "{}{kind}/{name}/{generation}.{outcome}", Self::RUNS)
            }
            Self::Pulls { day, writer, number, is_last } => {
                let end = if *is_last { ".end" } else { "" };
                write!(f, "{}{day}/{writer}.{number}{end}", Self::PULLS)
            }
            Self::PullSnapshot { day, generation } => {
                write!(f, "{}{day}.{generation}", Self::PULL_SNAPSHOTS)
            }
            Self::Ledger { repository, digest, version, generation } => {
                write!(f, "{}{version}.{generation}", Self::ledger_prefix(repository, digest))
            }
            Self::Probe { generation, step } => write!(f, "v1/probe/{generation}.{step}"),
        }
    }
}

fn write_tag(
    f: &mut fmt::Formatter<'_>,
    repository: &Name,
    tag: &Tag,
    version: Version,
    generation: Generation,
    target: Option<&Digest>,
) -> fmt::Result {
    write!(f, "{}{version}.{generation}.", Key::tag_prefix(repository, tag))?;
    match target {
        Some(digest) => write!(f, "{}", Dashed(digest)),
        None => f.write_str("-"),
    }
}

impl Key {
    /// What kind of object it is, in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Epoch { .. } => "epoch",
            Self::Blob { .. } => "blob",
            Self::Upload { .. } | Self::UploadTail { .. } => "upload",
            Self::Link { .. } => "link",
            Self::Manifest { .. } => "manifest",
            Self::Referrer { .. } => "referrer",
            Self::Tag { target: Some(_), .. } => "tag",
            Self::Tag { target: None, .. } => "tombstone",
            Self::ManifestDeleted { .. } | Self::TagWithdrawn { .. } => "marker",
            Self::Run { .. } => "run",
            Self::Pulls { .. } | Self::PullSnapshot { .. } => "pulls",
            Self::Ledger { .. } => "ledger",
            Self::Probe { .. } => "probe",
        }
    }
}

/// What to list to find all objects of a kind; each ends in `/`.
impl Key {
    /// The incarnations of the database, newest first.
    pub const EPOCHS: &'static str = "v1/epoch/";
    /// All data of blobs.
    pub const BLOBS: &'static str = "v1/blob/";
    /// Everything that uploads stage.
    pub const UPLOADS: &'static str = "v1/up/";
    /// The reports of all runs.
    pub const RUNS: &'static str = "v1/run/";
    /// All that is told of pulls.
    pub const PULLS: &'static str = "v1/pulls/";
    /// All snapshots of pulls, oldest first.
    pub const PULL_SNAPSHOTS: &'static str = "v1/pulls/snap/";
    /// The records of all repositories.
    pub const REPOSITORIES: &'static str = "v1/r/";

    /// All data of a digest.
    #[must_use]
    pub fn blob_prefix(digest: &Digest) -> String {
        let hex = digest.hex();
        let shard: String = hex.chars().take(2).collect();
        format!("v1/blob/{}/{shard}/{hex}/", digest.algorithm())
    }

    /// All records of a repository, and not those of repositories below it.
    #[must_use]
    pub fn repository_prefix(repository: &Name) -> String {
        format!("v1/r/{repository}/~")
    }

    /// All links of a repository to a blob.
    #[must_use]
    pub fn link_prefix(repository: &Name, digest: &Digest) -> String {
        format!("v1/r/{repository}/~b/{}/", Dashed(digest))
    }

    /// All records of a manifest in a repository, and their markers.
    #[must_use]
    pub fn manifest_prefix(repository: &Name, digest: &Digest) -> String {
        format!("v1/r/{repository}/~m/{}/", Dashed(digest))
    }

    /// All entries of the referrers of a subject.
    #[must_use]
    pub fn referrer_prefix(repository: &Name, subject: &Digest) -> String {
        format!("v1/r/{repository}/~s/{}/", Dashed(subject))
    }

    /// The promotions of a digest into a repository, newest first.
    #[must_use]
    pub fn ledger_prefix(repository: &Name, digest: &Digest) -> String {
        format!("v1/r/{repository}/~p/{}/", Dashed(digest))
    }

    /// All records of all tags of a repository.
    #[must_use]
    pub fn tags_prefix(repository: &Name) -> String {
        format!("v1/r/{repository}/~t/")
    }

    /// All records of a tag, newest first.
    #[must_use]
    pub fn tag_prefix(repository: &Name, tag: &Tag) -> String {
        format!("v1/r/{repository}/~t/{tag}/")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stowage_oci::Algorithm;

    use super::*;

    fn day(days: u32) -> Day {
        Day::since_1970((days % 2_000_000).cast_signed()).unwrap()
    }

    fn keys() -> impl Strategy<Value = Key> {
        let digest = (any::<bool>(), any::<[u8; 4]>()).prop_map(|(long, seed)| {
            Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, &seed)
        });
        let generation = any::<u128>().prop_map(|bits| Generation::from_uuid(uuid::Uuid::from_u128(bits)));
        let version = (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Version { epoch, seq });
        let name = "[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,4}"
            .prop_map(|text| text.parse::<Name>().unwrap());
        let tag = "[A-Za-z0-9_][A-Za-z0-9._-]{0,30}".prop_map(|text| text.parse::<Tag>().unwrap());
        let form = prop_oneof![Just(Form::Inline), Just(Form::Upload), any::<u32>().prop_map(Form::Tail)];
        (0..13, digest, any::<[u8; 4]>(), generation, version, name, tag, form, any::<u64>()).prop_map(
            |(kind, digest, seed, generation, version, repository, tag, form, size)| {
                let subject = Digest::of(Algorithm::Sha256, &seed);
                let target = (size % 2 == 0).then_some(digest);
                match kind {
                    0 => Key::Format,
                    1 => Key::Epoch { epoch: version.epoch, generation },
                    2 => Key::Blob { digest, generation, size, form },
                    3 => Key::Upload { generation },
                    4 => Key::UploadTail { generation, lease: version.epoch },
                    5 => Key::Link { repository, digest, generation },
                    6 => Key::Manifest { repository, digest, generation },
                    7 => Key::ManifestDeleted { repository, digest, generation },
                    8 => Key::Referrer { repository, subject, digest, generation },
                    10 => Key::Pulls {
                        day: day(version.epoch),
                        writer: generation,
                        number: version.epoch,
                        is_last: size % 2 == 0,
                    },
                    11 => Key::PullSnapshot { day: day(version.epoch), generation },
                    12 => Key::Ledger { repository, digest, version, generation },
                    9 if size % 3 == 0 => Key::TagWithdrawn { repository, tag, version, generation, target },
                    _ => Key::Tag { repository, tag, version, generation, target },
                }
            },
        )
    }

    #[test]
    fn the_report_of_a_run_says_of_what_it_is_and_how_it_ended() {
        let text = "v1/run/retention/team-a/01arz3ndektsv4rrffq69g5fav.refused";
        let key: Key = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert!(matches!(key, Key::Run { kind: RunKind::Retention, outcome: RunOutcome::Refused, .. }));
        let long = "a".repeat(64);
        for (kind, name, outcome) in [
            ("sweep", "a", "failed"),
            ("gc", "A", "failed"),
            ("gc", "-a", "failed"),
            ("gc", &long, "failed"),
            ("gc", "a", "died"),
        ] {
            let text = format!("v1/run/{kind}/{name}/01arz3ndektsv4rrffq69g5fav.{outcome}");
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn w720_a_key_is_plain_and_reads_back_as_what_was_written(key in keys()) {
            let text = key.to_string();
            for part in text.split('/') {
                prop_assert!(!["", ".", ".."].contains(&part), "{}", text);
                prop_assert!(part.bytes().all(|b| b.is_ascii_graphic() && !b"\\%".contains(&b)), "{}", text);
            }
            prop_assert_eq!(text.parse::<Key>(), Ok(key));
            prop_assert!(text.len() < 700);
        }

        #[test]
        fn newer_versions_sort_first(a in any::<(u32, u64)>(), b in any::<(u32, u64)>()) {
            let version = |(epoch, seq)| Version { epoch, seq };
            let (a, b) = (version(a), version(b));
            prop_assert_eq!(a.cmp(&b), b.to_string().cmp(&a.to_string()));
        }
    }

    #[test]
    fn w720_keys_we_cannot_have_made_are_refused() {
        for text in [
            "",
            "v2/FORMAT",
            "v1/FORMAT2",
            "v1/r/A/~b/x/y",
            "v1/up/aa/01",
            "v1/new-kind/x",
            "v1/r/a/~t/x/y.z",
            "v1/pulls/20260101/x.1",
            "v1/pulls/20260230/01hqzzzzzzzzzzzzzzzzzzzzzz.1",
            "v1/pulls/20260101/01hqzzzzzzzzzzzzzzzzzzzzzz.1.fin",
        ] {
            assert_eq!(text.parse::<Key>(), Err(UnknownKey(text.to_owned())), "{text}");
        }
    }
}
