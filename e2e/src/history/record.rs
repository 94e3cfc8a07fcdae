// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What clients did and saw, as values that can be written down.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stowage_oci::Digest;

/// An instant on the one clock of a history: nanoseconds since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// The instant this much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Moment {
    /// In seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

/// One thing that a client wanted, with all the attempts it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number; no other operation of the history has it.
    pub id: u64,
    /// Who wanted it.
    pub client: u32,
    /// What was wanted.
    pub action: Action,
    /// Before the first request was sent.
    pub invoked: Moment,
    /// After the last answer was read, or when the client gave up or was ended.
    pub ended: Moment,
    /// What came of it.
    pub outcome: Outcome,
    /// The attempts that came to nothing, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setbacks: Vec<Setback>,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Upload or mount a blob.
    PushBlob {
        /// Into it.
        repository: String,
        /// Of the content.
        digest: Digest,
    },
    /// Put a manifest. It is content of its own: no two manifests have the same digest.
    PushManifest {
        /// Into it.
        repository: String,
        /// Of the content.
        digest: Digest,
        /// The tag it is put under, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
        /// The blobs it lists.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blobs: Vec<Digest>,
        /// The manifests it lists.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        children: Vec<Digest>,
    },
    /// Get a manifest.
    PullManifest {
        /// From it.
        repository: String,
        /// By its tag or its digest.
        reference: Reference,
    },
    /// Get a blob.
    PullBlob {
        /// From it.
        repository: String,
        /// Of the content.
        digest: Digest,
    },
    /// Delete a tag, and nothing else.
    DeleteTag {
        /// From it.
        repository: String,
        /// Its name.
        tag: String,
    },
    /// Delete a manifest, and the tags that name it.
    DeleteManifest {
        /// From it.
        repository: String,
        /// Of the content.
        digest: Digest,
    },
    /// Take a blob out of a repository.
    DeleteBlob {
        /// Out of it.
        repository: String,
        /// Of the content.
        digest: Digest,
    },
    /// List all tags.
    ListTags {
        /// Of it.
        repository: String,
    },
}

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// By a name that moves.
    Tag(String),
    /// By its content.
    Digest(Digest),
}

impl Action {
    /// Whether it only reads content: what must work while any one part is away.
    #[must_use]
    pub fn is_pull(&self) -> bool {
        matches!(self, Self::PullManifest { .. } | Self::PullBlob { .. })
    }

    /// Where it happens.
    #[must_use]
    pub fn repository(&self) -> &str {
        match self {
            Self::PushBlob { repository, .. }
            | Self::PushManifest { repository, .. }
            | Self::PullManifest { repository, .. }
            | Self::PullBlob { repository, .. }
            | Self::DeleteTag { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::ListTags { repository } => repository,
        }
    }
}

impl Action {
    /// The kind of action, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PushBlob { .. } => "push blob",
            Self::PushManifest { tag: None, .. } => "push manifest",
            Self::PushManifest { tag: Some(_), .. } => "push tag",
            Self::PullManifest { reference: Reference::Tag(_), .. } => "pull tag",
            Self::PullManifest { reference: Reference::Digest(_), .. } => "pull manifest",
            Self::PullBlob { .. } => "pull blob",
            Self::DeleteTag { .. } => "delete tag",
            Self::DeleteManifest { .. } => "delete manifest",
            Self::DeleteBlob { .. } => "delete blob",
            Self::ListTags { .. } => "list tags",
        }
    }
}

impl Outcome {
    /// The kind of outcome, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Found { .. } => "found",
            Self::Absent => "absent",
            Self::Listed { .. } => "listed",
            Self::Refused { .. } => "refused",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
        }
    }
}

impl fmt::Display for Operation {
    /// On one line, with the digests cut short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, client, action, invoked, ended, outcome, setbacks } = self;
        write!(f, "#{id} client {client} [{invoked} {ended}] {} {}", action.kind(), action.repository())?;
        match action {
            Action::PushManifest { digest, tag: Some(tag), .. } => write!(f, ":{tag} {}", Short(digest))?,
            Action::PushManifest { digest, tag: None, .. }
            | Action::PushBlob { digest, .. }
            | Action::PullBlob { digest, .. }
            | Action::PullManifest { reference: Reference::Digest(digest), .. }
            | Action::DeleteManifest { digest, .. }
            | Action::DeleteBlob { digest, .. } => write!(f, " {}", Short(digest))?,
            Action::PullManifest { reference: Reference::Tag(tag), .. } | Action::DeleteTag { tag, .. } => {
                write!(f, ":{tag}")?;
            }
            Action::ListTags { .. } => {}
        }
        write!(f, ": {}", outcome.kind())?;
        match outcome {
            Outcome::Found { digest, claimed: None } => write!(f, " {}", Short(digest))?,
            Outcome::Found { digest, claimed: Some(claimed) } => {
                write!(f, " {} named {}", Short(digest), Short(claimed))?;
            }
            Outcome::Listed { tags } => write!(f, " {}", tags.join(" "))?,
            Outcome::Refused { status, code, missing } => {
                write!(f, " {status} {code}")?;
                missing.iter().try_for_each(|digest| write!(f, " {}", Short(digest)))?;
            }
            Outcome::Acknowledged | Outcome::Absent | Outcome::Failed | Outcome::Crashed => {}
        }
        for Setback { invoked, ended, replica, cause, fate } in setbacks {
            write!(f, "\n        [{invoked} {ended}] replica {replica}: {cause:?}, {fate:?}")?;
        }
        Ok(())
    }
}

/// As much of a digest as people compare.
struct Short<'a>(&'a Digest);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.hex().get(..12).unwrap_or_default())
    }
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A push or a deletion was acknowledged.
    Acknowledged,
    /// Content was read to its end.
    Found {
        /// Of the bytes that were received, computed by the client.
        digest: Digest,
        /// What the registry said the digest is, where that is something else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claimed: Option<Digest>,
    },
    /// What was asked for, or was to be deleted, is not there.
    Absent,
    /// Tags were listed, all of them.
    Listed {
        /// Their names.
        tags: Vec<String>,
    },
    /// The registry refused; the last attempt had no effect.
    Refused {
        /// Of HTTP.
        status: u16,
        /// The code of the specification.
        code: String,
        /// What the refusal says is missing.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<Digest>,
    },
    /// The client lost its patience. Its attempts tell what may still happen.
    Failed,
    /// The client was ended in the middle: nobody knows.
    Crashed,
}

/// An attempt that came to nothing, after which the client tried again or gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    /// Before the request was sent.
    pub invoked: Moment,
    /// When it was over.
    pub ended: Moment,
    /// The replica that was asked.
    pub replica: usize,
    /// Why it came to nothing.
    pub cause: Cause,
    /// What it may have done.
    pub fate: Fate,
}

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// There was no connection to be had.
    Unreachable,
    /// The connection ended before the answer did, or nothing came for too long.
    Broken,
    /// The client was told to come back.
    Unavailable {
        /// Of HTTP: 503 or 429.
        status: u16,
        /// In how many seconds, if it was told.
        retry_after: Option<u64>,
    },
    /// An answer that the registry must never give.
    Faulty {
        /// Of HTTP.
        status: u16,
    },
    /// The upload it was part of is not known any more.
    UploadGone {
        /// Of HTTP.
        status: u16,
    },
}

/// What an attempt may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing that anybody can see.
    NoEffect,
    /// It may take effect once, at any time after its invocation, or never.
    Unknown,
}

/// What a client may meet without a promise being broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How long after an [`Outage`] attempts may still come to nothing because of it.
    pub recovery: Duration,
    /// How long a blob that nothing refers to stays after it was pushed; `None`: for ever, nothing collects.
    pub blob_grace: Option<Duration>,
    /// Repositories that are copies of another registry's, if there are any.
    pub mirror: Option<Mirror>,
}

/// What is promised of copies of another registry's repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// What their names begin with.
    pub path: String,
    /// How old a tag may be, counted in time in which the other registry could have been asked.
    pub staleness: Duration,
    /// How long after a client has something whole it is stored.
    pub settling: Duration,
    /// How long after an outage of the other registry attempts may still come to nothing because of it.
    pub recovery: Duration,
}

/// A part of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The replica of this number.
    Replica(usize),
    /// The database, for every replica.
    Database,
    /// The bucket, for every replica.
    Bucket,
    /// The progress of uploads: a database took over that had not seen all of it.
    Uploads,
    /// The knowledge of what refers to what: a database took over that was not yet compared with all of the bucket.
    References,
    /// Room to write, for everybody: the disk is full.
    Room,
    /// The registry that some repositories are copies of, for every replica.
    Upstream,
}

/// A time in which a part was, by intent, not to be reached or slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Which part.
    pub part: Part,
    /// What was done to it.
    pub reason: String,
    /// Before it was done.
    pub from: Moment,
    /// When the part worked again; `None`: never.
    pub until: Option<Moment>,
}

/// All that is known of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What may be met.
    pub policy: Policy,
    /// What was done to the registry.
    pub outages: Vec<Outage>,
    /// What clients did, in any order.
    pub operations: Vec<Operation>,
}

/// One line of a history that is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The policy; the last one counts.
    Policy(Policy),
    /// An outage.
    Outage(Outage),
    /// An operation.
    Operation(Box<Operation>),
}

/// A history that cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file cannot be read.
    Io(std::io::Error),
    /// A line is none of a history.
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Two operations have the same id.
    Repeated(u64),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("read the history"),
            Self::Line { number, .. } => write!(f, "read line {number} of the history"),
            Self::Repeated(id) => write!(f, "two operations have the id {id}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(source) => Some(source),
            Self::Line { source, .. } => Some(source),
            Self::Repeated(_) => None,
        }
    }
}

impl History {
    /// Reads a history, a JSON value on each line.
    pub fn read(lines: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        let mut seen = std::collections::HashSet::new();
        for (line, number) in lines.lines().zip(1..) {
            let line = line.map_err(ReadError::Io)?;
            match serde_json::from_str(&line).map_err(|source| ReadError::Line { number, source })? {
                Line::Policy(policy) => history.policy = policy,
                Line::Outage(outage) => history.outages.push(outage),
                Line::Operation(operation) if !seen.insert(operation.id) => {
                    return Err(ReadError::Repeated(operation.id));
                }
                Line::Operation(operation) => history.operations.push(*operation),
            }
        }
        Ok(history)
    }

    /// Writes the history to a new file.
    pub fn keep(&self, file: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(file)?);
        self.write(&mut file)?;
        file.flush()
    }

    /// Writes the history as [`History::read`] reads it.
    pub fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let mut line = |line: Line| {
            serde_json::to_writer(&mut *to, &line)?;
            to.write_all(b"\n")
        };
        line(Line::Policy(self.policy.clone()))?;
        self.outages.iter().try_for_each(|outage| line(Line::Outage(outage.clone())))?;
        self.operations.iter().try_for_each(|operation| line(Line::Operation(Box::new(operation.clone()))))
    }
}
