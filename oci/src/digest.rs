// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Digests: which bytes are meant. The only place that knows the algorithms.

use std::fmt;
use std::str::FromStr;

use crate::Hasher;

/// A hash algorithm that content may be addressed by (image-spec, descriptor, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// Every algorithm, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name as it stands before the colon of a digest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of the hash in bytes.
    #[must_use]
    pub const fn hash_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The byte that stands for the algorithm in databases; never changes.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// The algorithm of a [code](Self::code).
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.code() == code)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(DigestError::Unsupported)
    }
}

/// Why a text is not a digest we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the form of a digest, or of the wrong length for its algorithm.
    #[error("digest must be <algorithm>:<hex>, lower case, 64 digits for sha256 and 128 for sha512")]
    Malformed,
    /// Well formed, but of an algorithm we do not know.
    #[error("digest algorithm is not supported; use sha256 or sha512")]
    Unsupported,
}

/// The address of some content: an algorithm and its hash. Ordered by algorithm, then hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Unused bytes are zero, so that the derived comparisons hold.
    hash: [u8; 64],
}

impl Digest {
    /// A digest from the raw hash; `None` when its length is not the algorithm's.
    #[must_use]
    pub fn new(algorithm: Algorithm, raw: &[u8]) -> Option<Self> {
        let mut hash = [0; 64];
        hash.get_mut(..algorithm.hash_length())?.copy_from_slice(
            raw.get(..algorithm.hash_length()).filter(|_| raw.len() == algorithm.hash_length())?,
        );
        Some(Self { algorithm, hash })
    }

    /// The digest of `content`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw hash, 32 or 64 bytes.
    #[must_use]
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.algorithm.hash_length()]
    }

    /// The hash in lower-case hex, 64 or 128 digits.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.hash()
            .iter()
            .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
            .map(char::from)
            .collect()
    }

    /// The form databases hold: the algorithm's code, then the hash.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.algorithm.hash_length());
        bytes.push(self.algorithm.code());
        bytes.extend_from_slice(self.hash());
        bytes
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (code, raw) = bytes.split_first()?;
        Self::new(Algorithm::from_code(*code)?, raw)
    }

    /// Whether `text` has the form of a digest of *any* algorithm (distribution-spec, "Digest").
    #[must_use]
    pub fn is_well_formed(text: &str) -> bool {
        let Some((algorithm, encoded)) = text.split_once(':') else { return false };
        let components = algorithm.split(['+', '.', '_', '-']).all(|component| {
            !component.is_empty() && component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        components
            && !encoded.is_empty()
            && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if !Self::is_well_formed(text) {
            return Err(DigestError::Malformed);
        }
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let algorithm: Algorithm = algorithm.parse()?;
        let raw = decode_hex(encoded).ok_or(DigestError::Malformed)?;
        Self::new(algorithm, &raw).ok_or(DigestError::Malformed)
    }
}

/// Lower-case hex to bytes; anything else is `None`.
fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn w004_the_known_forms_parse_and_others_do_not() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(format!("sha256:{hex}").parse::<Digest>().unwrap(), Digest::of(Algorithm::Sha256, b""));
        for bad in [
            format!("sha256:{}", hex.to_uppercase()),
            "sha256:abc".into(),
            hex.into(),
            format!("sha512:{hex}"),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError::Malformed), "{bad}");
        }
        assert_eq!("md5:abc".parse::<Digest>(), Err(DigestError::Unsupported));
        assert_eq!("SHA256:abc".parse::<Digest>(), Err(DigestError::Malformed));
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(content in proptest::collection::vec(any::<u8>(), 0..300), long: bool) {
            let digest = Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, &content);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            prop_assert_eq!(Digest::from_bytes(&digest.to_bytes()).unwrap(), digest);
        }
    }
}
