// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Where a chunk of an upload lies.

use std::str::FromStr;

/// The bytes of an upload that a chunk brings: `<start>-<end>`, inclusive (distribution-spec, "Pushing a blob
/// in chunks"). The prefix `bytes ` and a `/<total>` of the general header are tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    start: u64,
    end: u64,
}

/// The text is not a range of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Content-Range must be <start>-<end>, two numbers of which the second is not the smaller")]
pub struct ContentRangeError;

impl ContentRange {
    /// The first byte.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes; at least one.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.end - self.start + 1
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        let text = text.trim();
        let text = text.strip_prefix("bytes ").unwrap_or(text).trim_start();
        let (range, total) = text.split_once('/').unwrap_or((text, "*"));
        let (start, end) = range.split_once('-').ok_or(ContentRangeError)?;
        let (start, end) = (number(start)?, number(end)?);
        let total_is_possible = total == "*" || number(total)? > end;
        if start > end || !total_is_possible {
            return Err(ContentRangeError);
        }
        Ok(Self { start, end })
    }
}

/// Digits to a number below 2^63, so that lengths can be computed with it.
fn number(text: &str) -> Result<u64, ContentRangeError> {
    Some(text)
        .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse::<i64>().ok())
        .and_then(|number| u64::try_from(number).ok())
        .ok_or(ContentRangeError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w202_both_ends_are_inclusive_and_the_general_form_is_tolerated() {
        for text in ["0-9", "bytes 0-9", "0-9/10", "bytes 0-9/*", " 0-9 "] {
            let range: ContentRange = text.parse().unwrap();
            assert_eq!((range.start(), range.length()), (0, 10), "{text}");
        }
        assert_eq!("5-5".parse::<ContentRange>().map(|range| range.length()), Ok(1));
        assert_eq!("0-9223372036854775807".parse::<ContentRange>().map(|range| range.length()), Ok(1 << 63));
    }

    #[test]
    fn w095_anything_else_is_malformed() {
        for text in [
            "",
            "-",
            "0-",
            "-9",
            "9-0",
            "a-b",
            "0--1",
            "+0-9",
            "0-9/9",
            "0-9/",
            "0-9/a",
            "bytes=0-9",
            "0-9223372036854775808",
            "0 - 9",
        ] {
            assert_eq!(text.parse::<ContentRange>(), Err(ContentRangeError), "{text}");
        }
    }
}
