// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The requests a store takes, by name: for errors, metrics and injected faults.

use super::{Error, Source};

/// A request to the object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are the methods of the traits")]
pub enum Request {
    Head,
    Get,
    List,
    Put,
    CreateMultipart,
    UploadPart,
    Complete,
    Abort,
    ListMultiparts,
    Delete,
}

impl Request {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Head,
        Self::Get,
        Self::List,
        Self::Put,
        Self::CreateMultipart,
        Self::UploadPart,
        Self::Complete,
        Self::Abort,
        Self::ListMultiparts,
        Self::Delete,
    ];

    /// The request's name in errors, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Get => "get",
            Self::List => "list",
            Self::Put => "put",
            Self::CreateMultipart => "create_multipart",
            Self::UploadPart => "upload_part",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::ListMultiparts => "list_multiparts",
            Self::Delete => "delete",
        }
    }

    pub(super) fn unavailable(self, key: &str, source: impl Into<Source>) -> Error {
        Error::Unavailable { operation: self.name(), key: key.to_owned(), source: source.into() }
    }

    pub(super) fn full(self, key: &str, source: impl Into<Source>) -> Error {
        Error::Full { operation: self.name(), key: key.to_owned(), source: source.into() }
    }

    pub(super) fn refused(self, key: &str, source: impl Into<Source>) -> Error {
        Error::Refused { operation: self.name(), key: key.to_owned(), source: source.into() }
    }

    pub(super) fn unknown_upload(self, key: &str) -> Error {
        Error::UnknownUpload { operation: self.name(), key: key.to_owned() }
    }
}
