// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the key of a report says of the run.

use std::fmt;
use std::str::FromStr;

/// The text is none of the words that are known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no word of the key of a run")]
pub struct UnknownWord(String);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$member_doc])* $member,)+
        }

        impl $name {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The word in a key.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$member => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                let found = Self::ALL.iter().find(|member| member.as_str() == text);
                found.copied().ok_or_else(|| UnknownWord(text.to_owned()))
            }
        }
    };
}

words! {
    /// Which job ran.
    RunKind {
        /// Collection.
        Gc = "gc",
        /// A retention policy.
        Retention = "retention",
        /// A mirror that replicates.
        Sync = "sync",
        /// A verification.
        Verify = "verify",
        /// A rebuild.
        Rebuild = "rebuild",
        /// A promotion.
        Promote = "promote",
    }
}

words! {
    /// How it ended.
    RunOutcome {
        /// It did what it was asked.
        Succeeded = "succeeded",
        /// It stopped on a failure.
        Failed = "failed",
        /// It did not act, for safety.
        Refused = "refused",
    }
}

/// What a run was of: the name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName(String);

/// The text names no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a run: 1 to 63 of a-z, 0-9 and '-', the first and last no '-'")]
pub struct NotARunName(String);

impl RunName {
    /// The longest, in characters.
    pub const MAX: usize = 63;

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunName {
    type Err = NotARunName;

    fn from_str(text: &str) -> Result<Self, NotARunName> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(legal)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_name { Ok(Self(text.to_owned())) } else { Err(NotARunName(text.to_owned())) }
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
