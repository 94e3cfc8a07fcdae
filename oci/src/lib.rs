// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The words of the OCI distribution protocol, as types that cannot hold a wrong value.
//!
//! Everything here is pure: text or bytes in, a value or an error out. A value of these types has been
//! validated once, at the door, and is trusted from there on.

mod content_range;
mod digest;
mod error_code;
mod glob;
mod hash;
mod json;
mod manifest;
mod name;
mod platform;
mod range;
mod reference;
mod selection;
mod tag;
mod template;
mod version;

pub use content_range::{ContentRange, ContentRangeError};
pub use digest::{Algorithm, Digest, DigestError};
pub use error_code::ErrorCode;
pub use glob::{Glob, GlobError, TagGlob};
pub use hash::{Hasher, StateError};
pub use manifest::{Manifest, ManifestError, ManifestKind};
pub use name::{Name, NameError};
pub use platform::{Platform, PlatformError};
pub use range::Ranges;
pub use reference::{Reference, ReferenceError};
pub use selection::{ExpressionError, GroupsError, TagExpression, TagGroups, TagSelection, TagsWanted};
pub use tag::{Tag, TagError};
pub use template::{RepositoryTemplate, TagTemplate, TemplateError};
pub use version::{RangeError, Version, VersionRange};
