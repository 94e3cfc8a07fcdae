// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The kinds of the API group.

use std::fmt;

use crate::API_VERSION;

/// A kind of custom resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`crate::Registry`]
    Registry,
    /// [`crate::AccessPolicy`]
    AccessPolicy,
    /// [`crate::Mirror`]
    Mirror,
    /// [`crate::VirtualRepository`]
    VirtualRepository,
    /// [`crate::PromotionPolicy`]
    PromotionPolicy,
    /// [`crate::Promotion`]
    Promotion,
    /// [`crate::RetentionPolicy`]
    RetentionPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Registry,
        Self::AccessPolicy,
        Self::Mirror,
        Self::VirtualRepository,
        Self::PromotionPolicy,
        Self::Promotion,
        Self::RetentionPolicy,
    ];

    /// The word in `kind:`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "Registry",
            Self::AccessPolicy => "AccessPolicy",
            Self::Mirror => "Mirror",
            Self::VirtualRepository => "VirtualRepository",
            Self::PromotionPolicy => "PromotionPolicy",
            Self::Promotion => "Promotion",
            Self::RetentionPolicy => "RetentionPolicy",
        }
    }

    /// The kind that `apiVersion` and `kind` of an object name; `None` if it is none of ours.
    #[must_use]
    pub fn of(object: &serde_json::Value) -> Option<Self> {
        if object.get("apiVersion")?.as_str()? != API_VERSION {
            return None;
        }
        let word = object.get("kind")?.as_str()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
