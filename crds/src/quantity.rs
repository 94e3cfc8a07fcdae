// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A number of bytes as people write it: `512`, `50Gi`, `1.5M`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{duration::scaled, text::text_schema};

const PATTERN: &str = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
const MAX_LENGTH: usize = 24;
/// More bytes than this count as this many: what a signed 64-bit column of a database can hold.
const MOST: u64 = i64::MAX.unsigned_abs();

/// A number of bytes, with a decimal (`k` `M` `G` `T` `P`) or binary (`Ki` … `Pi`) suffix or none.
///
/// Keeps the text as written, so that a document says what its author said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    text: String,
    bytes: u64,
}

/// The text is not a number of bytes.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a quantity: {0:?}; write a number and at most one of Ki, Mi, Gi, Ti, Pi, k, M, G, T, P, as in 50Gi"
)]
pub struct NotAQuantity(String);

impl Quantity {
    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The number of bytes, rounded down; never more than `i64::MAX`.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let bytes = parse(text).ok_or_else(|| NotAQuantity(text.to_owned()))?;
        Ok(Self { text: text.to_owned(), bytes })
    }
}

impl TryFrom<String> for Quantity {
    type Error = NotAQuantity;

    fn try_from(text: String) -> Result<Self, NotAQuantity> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.text
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_schema!(Quantity, PATTERN, MAX_LENGTH);

fn parse(text: &str) -> Option<u64> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let bytes = scaled(number, multiplier(suffix)?)?;
    Some(u64::try_from(bytes).unwrap_or(MOST).min(MOST))
}

fn multiplier(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "P" => 1000_u128.pow(5),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_is_read() {
        for (text, expected) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1000),
            ("50M", 50_000_000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("2P", 2_000_000_000_000_000),
            ("1Pi", 1_125_899_906_842_624),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().bytes(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Gi", "1.", ".5", "-1", "1 Gi", "1gi", "1Kib", "1e3", "1K"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn too_much_counts_as_the_most_a_database_can_hold() {
        assert_eq!("9999999999999999999999Pi".parse::<Quantity>().unwrap().bytes(), MOST);
    }
}
