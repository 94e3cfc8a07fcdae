// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether an image is signed with one of some keys, as cosign signs: the signatures are found, read and verified.
//!
//! Two forms: bundles of Sigstore 0.3, in manifests that refer to the image ([`bundle`]), and payloads of "simple
//! signing" in the manifest under the tag `sha256-<hex>.sig` ([`simple`]). A signature counts if a key verifies its
//! bytes, and these say that they are about the digest of this image. What is signed is a digest: the children of a
//! signed index are covered by it.
//! Guarantees: nothing that an unsigned text says is believed, nor where it was found: annotations and hints only
//! spare requests. Reading and verifying is pure; asking is by [`Source`].
//! Assumes: a digest that is asked about is that of the bytes that it will be used for.
//! Attestations are looked for in the same two places, and count likewise ([`attest`]).
//! Never: asks a transparency log or a certificate authority; whoever has one of the keys is believed, at any time.
//! Nor knows what a mirror is.

mod attest;
mod bundle;
mod keys;
mod layers;
mod seek;
mod simple;

pub use attest::{Attestation, Attested, attestations};
pub use keys::{Key, Keys};
pub use layers::{is_about_another, subject_of};
pub(crate) use seek::tag_of;
pub use seek::{MOST_BYTES, Proof, Referrer, Source, Verdict, seek};

use stowage_oci::Digest;

/// Why an image does not count as signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// There is no signature.
    #[error("{0} has no signature")]
    Missing(Digest),
    /// There are signatures, none of which counts.
    #[error("no signature of {image} counts: one {flaw}")]
    Invalid {
        /// The image.
        image: Digest,
        /// What is wrong with one of them.
        flaw: Flaw,
    },
}

/// What is wrong with a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its bytes were not signed by any of the keys.
    #[error("verifies with none of the keys {0}")]
    Key(String),
    /// It is about something else.
    #[error("is about another image")]
    Image,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(&'static str),
}
