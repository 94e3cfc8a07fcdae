// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Platforms: what an image was made for, as `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The platform that a descriptor of an index names. Fields that we do not compare are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Platform {
    /// The operating system, as Go spells it.
    pub os: String,
    /// The processor, as Go spells it.
    pub architecture: String,
    /// The sort of processor, where that makes a difference.
    #[serde(default)]
    pub variant: Option<String>,
}

/// The text is no platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "platform must be os/architecture or os/architecture/variant, as linux/arm64/v8, each of lower-case letters, \
     digits, '.', '_' and '-'"
)]
pub struct PlatformError;

impl Platform {
    /// Whether an image for `other` is what is meant. Who names no variant means every one.
    #[must_use]
    pub fn takes(&self, other: &Self) -> bool {
        let is_variant = self.variant.is_none() || self.variant() == other.variant();
        self.os == other.os && self.architecture == other.architecture && is_variant
    }

    /// The variant, with the one that `arm64` has where none is said (image-spec, "Platform Variants").
    fn variant(&self) -> Option<&str> {
        let usual = (self.architecture == "arm64").then_some("v8");
        self.variant.as_deref().filter(|variant| !variant.is_empty()).or(usual)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_part = |part: &&str| {
            let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
            !part.is_empty() && part.bytes().all(fits)
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_part) {
            return Err(PlatformError);
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(PlatformError),
        };
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_platform_reads_back_as_it_is_written() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/amd 64"] {
            assert_eq!(text.parse::<Platform>(), Err(PlatformError), "{text:?}");
        }
    }

    #[test]
    fn who_names_no_variant_means_every_one() {
        assert!(platform("linux/arm").takes(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm/v6").takes(&platform("linux/arm/v7")));
        assert!(platform("linux/arm64/v8").takes(&platform("linux/arm64")));
        assert!(platform("linux/arm64").takes(&platform("linux/arm64/v8")));
        assert!(!platform("linux/amd64").takes(&platform("linux/arm64")));
        assert!(!platform("linux/amd64").takes(&platform("windows/amd64")));
    }
}
