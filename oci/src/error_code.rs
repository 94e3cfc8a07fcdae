// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The words of an error body.

use std::fmt;

/// An error code (distribution-spec, "Error Codes"), and two that only accompany faults of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Blob not known here.
    BlobUnknown,
    /// Upload in the wrong state, or asked for the impossible.
    BlobUploadInvalid,
    /// Upload not known here.
    BlobUploadUnknown,
    /// Digest malformed, or not that of the content.
    DigestInvalid,
    /// A manifest refers to what is not here.
    ManifestBlobUnknown,
    /// Not a manifest we store.
    ManifestInvalid,
    /// Manifest or tag not known here.
    ManifestUnknown,
    /// Not a repository name.
    NameInvalid,
    /// Repository not known here.
    NameUnknown,
    /// Length other than announced, or too large.
    SizeInvalid,
    /// Credentials are needed.
    Unauthorized,
    /// Not allowed.
    Denied,
    /// Not a thing we do.
    Unsupported,
    /// Too much at once.
    TooManyRequests,
    /// A fault that a repeat will not mend. Only with 5xx.
    Unknown,
    /// A fault that passes. Only with 5xx.
    Unavailable,
}

impl ErrorCode {
    /// The code as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
