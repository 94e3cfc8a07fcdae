// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The words of the OCI distribution protocol, as types that cannot hold a wrong value.
//!
//! Everything here is pure: text or bytes in, a value or an error out. A value of these types has been
//! validated once, at the door, and is trusted from there on.

mod digest;
mod hash;
mod name;
mod reference;
mod tag;

pub use digest::{Algorithm, Digest, DigestError};
pub use hash::{Hasher, StateError};
pub use name::{Name, NameError};
pub use reference::{Reference, ReferenceError};
pub use tag::{Tag, TagError};
