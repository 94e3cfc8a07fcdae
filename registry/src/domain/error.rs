// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Why the registry did not do what a client asked.

#![deny(clippy::wildcard_enum_match_arm)]

use stowage_oci::{Digest, Tag};

use crate::signatures::Unsigned;
use crate::{blobs, meta, outbox, upstream};

/// A refusal or a fault. Refusals are the client's to mend; of faults the client learns no more than that.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository has never been pushed to.
    #[error("repository is not known to this registry")]
    NameUnknown,
    /// No such manifest or tag here.
    #[error("manifest is not known to this repository")]
    ManifestUnknown,
    /// No such blob here.
    #[error("blob is not known to this repository")]
    BlobUnknown,
    /// No such upload of this client here.
    #[error("upload is not known to this repository")]
    UploadUnknown,
    /// The chunk does not begin where the upload ends, or another request holds the upload.
    #[error("chunk must begin at byte {offset}, where the upload ends")]
    NotAtOffset {
        /// Where it ends.
        offset: u64,
    },
    /// The body is shorter or longer than was announced.
    #[error("body has {actual} bytes, {announced} were announced")]
    LengthMismatch {
        /// What was announced.
        announced: u64,
        /// What came, as far as it was read.
        actual: u64,
    },
    /// The content does not have the digest that was claimed.
    #[error("content has digest {actual}, not the one that was claimed")]
    DigestMismatch {
        /// What we found.
        actual: Digest,
    },
    /// The blob is larger than the registry takes.
    #[error("blob is larger than the {limit} bytes this registry takes")]
    BlobTooLarge {
        /// The configured limit in bytes.
        limit: u64,
    },
    /// The bytes are not a manifest we accept.
    #[error(transparent)]
    ManifestInvalid(#[from] stowage_oci::ManifestError),
    /// What the manifest refers to is not in the repository.
    #[error("manifest refers to content that is not in this repository")]
    ReferencesMissing(Vec<Digest>),
    /// The subject has as many referrers as it may have.
    #[error("the subject has {0} referrers already, more are not taken")]
    TooManyReferrers(u32),
    /// The tag never names a second digest, and no client deletes it.
    #[error(
        "tag {tag} is immutable by the rule {rule:?} of this registry: it cannot name another digest, and clients cannot delete it"
    )]
    TagImmutable {
        /// The tag.
        tag: Tag,
        /// The rule that covers it.
        rule: String,
    },
    /// It was never deleted, lives again, or is gone for good.
    #[error("it is not in the trash of this repository")]
    NotInTrash,
    /// Something live refers to what should be deleted.
    #[error("a manifest of this repository refers to it; delete that first")]
    Referenced,
    /// The registry does not delete, or does not change at all, at present.
    #[error("{0}")]
    ModeForbids(&'static str),
    /// The client sends too slowly, or stopped.
    #[error("upload body made no progress")]
    BodyStalled,
    /// The connection broke while the body came.
    #[error("upload body broke off")]
    BodyBroken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Too many uploads of this client are open, or too many are running.
    #[error("too many uploads; finish or cancel some")]
    TooManyUploads,
    /// What a mirror should fetch, its upstream did not give.
    #[error("the registry that is mirrored here: {0}")]
    Upstream(#[source] upstream::Error),
    /// The upstream moved a tag a moment ago, and the mirror holds back what is new.
    #[error(
        "the registry that is mirrored here says since a short time only that this tag is {digest}; it is answered \
         from {until} on, and by its digest at once"
    )]
    Quarantined {
        /// What the tag is there.
        digest: Box<Digest>,
        /// When it is answered.
        until: jiff::Timestamp,
    },
    /// What is promoted from a mirror is not all here, and does not come now.
    #[error(
        "mirror {mirror} has not fetched {digest}, and cannot now: {why}; when the image was pulled through the mirror, \
         or fetched by stowage-registry load, it can be promoted"
    )]
    NotFetched {
        /// The mirror.
        mirror: String,
        /// A blob of it, or a manifest that it lists.
        digest: Box<Digest>,
        /// Why it does not come.
        why: String,
    },
    /// What a mirror has, or should fetch, is not signed as it asks.
    #[error("this mirror takes signed images only: {0}")]
    Unsigned(#[source] Unsigned),
    /// A mirror of ours asked another registry, which asked us.
    #[error("mirrors of this registry lead back to it: nothing is fetched for a request that it made itself")]
    MirrorLoop,
    /// The virtual repository is suspended.
    #[error("this virtual repository is suspended")]
    Suspended,
    /// The database is away; nothing was changed, or the change is not acknowledged.
    #[error("the database is not available")]
    DatabaseAway(#[source] meta::Error),
    /// The database is empty, the bucket is not: only pulls are answered.
    #[error("the database is empty and must be rebuilt from the object store; only pulls are answered")]
    RebuildRequired,
    /// Not everything in the database was compared with the bucket yet.
    #[error(
        "the database was restarted or restored and is being compared with the object store; this is possible \
         again when that has ended"
    )]
    NotCompared,
    /// The bucket is away.
    #[error("the object store is not available")]
    StoreAway(#[source] blobs::Error),
    /// The process is stopping; what is durable stays.
    #[error("this replica is stopping")]
    Stopping,
    /// Somebody else took over what this request was doing; the client starts over.
    #[error("the request was overtaken; repeat it")]
    Overtaken,
    /// A broken invariant: a bug, or a database or bucket that somebody else changed.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<meta::Error> for Error {
    fn from(error: meta::Error) -> Self {
        match error {
            // A caller that meets a new incarnation takes over and repeats; here it could not.
            meta::Error::Unavailable(_) | meta::Error::Full(_) | meta::Error::Superseded => {
                Self::DatabaseAway(error)
            }
            // The last two are only told to collectors.
            meta::Error::Unreadable { .. }
            | meta::Error::Schema { .. }
            | meta::Error::Broken(_)
            | meta::Error::Untrusted
            | meta::Error::Live { .. } => Self::Internal(Box::new(error)),
        }
    }
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        match error {
            blobs::Error::Unavailable { .. } | blobs::Error::Full { .. } | blobs::Error::Refused { .. } => {
                Self::StoreAway(error)
            }
            blobs::Error::UnknownUpload { .. } => Self::UploadUnknown,
        }
    }
}

impl From<outbox::Error> for Error {
    fn from(error: outbox::Error) -> Self {
        match error {
            outbox::Error::Store(cause) => cause.into(),
            outbox::Error::UnknownStep(_) => Self::Internal(Box::new(error)),
        }
    }
}
