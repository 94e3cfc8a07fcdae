// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Everything a client can ask for on the data port.
//!
//! A request is parsed into one of these, authorised as one, dispatched, logged and counted by its name.
//! Fields that decide a right are here; bodies, ranges and conditions are read when the right is known.

use stowage_oci::{Algorithm, Digest, Name, Reference, Tag};
use uuid::Uuid;

/// A request to the registry, with everything that decides who may make it.
#[expect(missing_docs, reason = "the fields are named as in the specification")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET|HEAD /v2/` (end-1).
    Ping,
    /// `GET|HEAD …/blobs/<digest>` (end-2).
    GetBlob { repository: Name, digest: Digest, head: bool },
    /// `GET|HEAD …/manifests/<reference>` (end-3).
    GetManifest { repository: Name, reference: Reference, head: bool },
    /// `POST …/blobs/uploads/` (end-4a, 4b, 4c, 11).
    OpenUpload { repository: Name, opening: Opening },
    /// `PATCH <location>` (end-5).
    Append { repository: Name, upload: Uuid },
    /// `PUT <location>?digest=` (end-6).
    CloseUpload { repository: Name, upload: Uuid, digest: Digest },
    /// `GET|HEAD <location>` (end-13).
    UploadStatus { repository: Name, upload: Uuid },
    /// `DELETE <location>` (end-14).
    CancelUpload { repository: Name, upload: Uuid },
    /// `PUT …/manifests/<reference>` (end-7a, 7b).
    PutManifest { repository: Name, reference: Reference, digest: Option<Digest>, tags: Vec<Tag> },
    /// `GET …/tags/list` (end-8).
    ListTags { repository: Name, page: Page },
    /// `DELETE …/manifests/<reference>` (end-9).
    DeleteManifest { repository: Name, reference: Reference },
    /// `DELETE …/blobs/<digest>` (end-10).
    DeleteBlob { repository: Name, digest: Digest },
    /// `GET …/referrers/<digest>` (end-12). No `subject`: it is of an algorithm that nothing here can have.
    ListReferrers { repository: Name, subject: Option<Digest>, artifact_types: Vec<String>, page: Page },
    /// `GET /v2/_catalog`.
    Catalog { page: Page },
    /// `GET /v2/_oci/ext/discover`, or below a repository.
    Discover { repository: Option<Name> },
}

/// What a `POST` to the uploads of a repository asks for.
#[expect(missing_docs, reason = "the fields are named as in the specification")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// An upload in pieces, hashed with the algorithm.
    Session { algorithm: Algorithm },
    /// The whole blob in this request.
    Monolithic { digest: Digest },
    /// The blob of another repository; if that cannot be, `or` else. `from` is `None` when the client leaves
    /// the choice to us, or named what cannot be a repository.
    Mount { digest: Digest, from: MountSource, or: Box<Opening> },
}

/// Where a mount may take a blob from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// This repository.
    Repository(Name),
    /// Any repository the client may read.
    Any,
    /// The client named what cannot be a repository: nothing can be mounted.
    Nowhere,
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many; `None`: as many as a page holds.
    pub limit: Option<u32>,
    /// Only what comes after this, exclusive; need not exist.
    pub after: Option<String>,
}

/// What the registry as a whole takes at present, whoever asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    ReadWrite,
    /// Pulls and pushes; tags, manifests and blobs are not deleted.
    NoDelete,
    /// Pulls.
    ReadOnly,
}

impl Mode {
    /// Why the operation is not done at present; `None` if it is.
    #[must_use]
    pub fn forbids(self, operation: &Operation) -> Option<&'static str> {
        self.refuses(operation.action()?)
    }

    /// The same of anything that is done by that right.
    #[must_use]
    pub const fn refuses(self, action: Action) -> Option<&'static str> {
        match (self, action) {
            (Self::ReadWrite, _)
            | (_, Action::Pull | Action::Administer)
            | (Self::NoDelete, Action::Push | Action::Promote) => None,
            (Self::NoDelete, Action::Delete) => Some("this registry does not delete"),
            (Self::ReadOnly, Action::Push | Action::Delete | Action::Promote) => {
                Some("this registry is read-only")
            }
        }
    }
}

/// What a rule can allow on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read blobs, manifests, tags, referrers.
    Pull,
    /// Upload blobs, push manifests and tags, cancel uploads.
    Push,
    /// Delete tags, manifests, blobs.
    Delete,
    /// Ask for promotions into it, on the admin port.
    Promote,
    /// See plans and what was deleted, and restore it, on the admin port.
    Administer,
}

impl Operation {
    /// The operation's name in logs, metrics and rules.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::GetBlob { head: false, .. } => "get_blob",
            Self::GetBlob { head: true, .. } => "head_blob",
            Self::GetManifest { head: false, .. } => "get_manifest",
            Self::GetManifest { head: true, .. } => "head_manifest",
            Self::OpenUpload { .. } => "open_upload",
            Self::Append { .. } => "append_upload",
            Self::CloseUpload { .. } => "close_upload",
            Self::UploadStatus { .. } => "upload_status",
            Self::CancelUpload { .. } => "cancel_upload",
            Self::PutManifest { .. } => "put_manifest",
            Self::ListTags { .. } => "list_tags",
            Self::DeleteManifest { .. } => "delete_manifest",
            Self::DeleteBlob { .. } => "delete_blob",
            Self::ListReferrers { .. } => "list_referrers",
            Self::Catalog { .. } => "catalog",
            Self::Discover { .. } => "discover",
        }
    }

    /// The repository it is about, if it is about one.
    #[must_use]
    pub const fn repository(&self) -> Option<&Name> {
        match self {
            Self::Ping | Self::Catalog { .. } => None,
            Self::Discover { repository } => repository.as_ref(),
            Self::GetBlob { repository, .. }
            | Self::GetManifest { repository, .. }
            | Self::OpenUpload { repository, .. }
            | Self::Append { repository, .. }
            | Self::CloseUpload { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::CancelUpload { repository, .. }
            | Self::PutManifest { repository, .. }
            | Self::ListTags { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::ListReferrers { repository, .. } => Some(repository),
        }
    }

    /// The same about another repository: the name under which ours is stored.
    #[must_use]
    pub fn in_repository(mut self, name: Name) -> Self {
        match &mut self {
            Self::Ping | Self::Catalog { .. } => {}
            Self::Discover { repository } => *repository = Some(name),
            Self::GetBlob { repository, .. }
            | Self::GetManifest { repository, .. }
            | Self::OpenUpload { repository, .. }
            | Self::Append { repository, .. }
            | Self::CloseUpload { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::CancelUpload { repository, .. }
            | Self::PutManifest { repository, .. }
            | Self::ListTags { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::ListReferrers { repository, .. } => *repository = name,
        }
        self
    }

    /// The action that its repository must allow; `None` for those that are not about one.
    #[must_use]
    pub const fn action(&self) -> Option<Action> {
        match self {
            Self::Ping | Self::Catalog { .. } | Self::Discover { repository: None } => None,
            Self::Discover { repository: Some(_) }
            | Self::GetBlob { .. }
            | Self::GetManifest { .. }
            | Self::ListTags { .. }
            | Self::ListReferrers { .. } => Some(Action::Pull),
            Self::OpenUpload { .. }
            | Self::Append { .. }
            | Self::CloseUpload { .. }
            | Self::UploadStatus { .. }
            | Self::CancelUpload { .. }
            | Self::PutManifest { .. } => Some(Action::Push),
            Self::DeleteManifest { .. } | Self::DeleteBlob { .. } => Some(Action::Delete),
        }
    }
}
